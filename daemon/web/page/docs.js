"use strict";
// Shows openapi.json of this gateway. Text is only ever set as text; nothing is fetched from anywhere else.

const root = new URL("./", location.href).href.replace(/\/$/, "");
const METHODS = ["get", "head", "post", "put", "patch", "delete"];

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

// `code` and paragraphs are all of Markdown that the description uses.
function words(text) {
  return text.split(/`([^`]*)`/).map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

function paragraphs(text) {
  return text.split(/\n{2,}/).filter(Boolean).map((part) => make("p", {}, ...words(part)));
}

const lastName = (reference) => reference.split("/").pop();

// Of each line of a stream, or of the data of each event.
function streamed(schema) {
  const one = schema.properties?.data || schema;
  return [one, ...(one.anyOf || [])].find((each) => each.contentSchema)?.contentSchema;
}

// A schema in words, with links to the types it names.
function kind(schema) {
  if (schema.$ref) return [make("a", { href: "#type-" + lastName(schema.$ref) }, lastName(schema.$ref))];
  const of = streamed(schema);
  if (of) return kind(of);
  const several = schema.anyOf || schema.oneOf;
  if (several) {
    const given = several.filter((each) => each.type !== "null");
    const parts = given.flatMap((each, index) => (index ? [" or ", ...kind(each)] : kind(each)));
    return given.length < several.length ? [...parts, " or null"] : parts;
  }
  if (schema.enum) return [schema.enum.map((each) => JSON.stringify(each)).join(" or ")];
  if ("const" in schema) return [JSON.stringify(schema.const)];
  if (schema.type === "array") return ["list of ", ...(schema.items ? kind(schema.items) : ["anything"])];
  if (schema.type === "object" && typeof schema.additionalProperties === "object") {
    return ["object of ", ...kind(schema.additionalProperties)];
  }
  return [Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type || "anything"];
}

// What may be absent may be null, too: not worth the words.
const withoutNull = (schema) => ({ ...schema, anyOf: schema.anyOf?.filter((each) => each.type !== "null") });

function row(name, schema, must, text) {
  const preset = schema.default === undefined || schema.default === null || Array.isArray(schema.default) ? "" :
    ` (${JSON.stringify(schema.default)})`;
  return make("tr", {},
    make("td", {}, make("span", { class: must ? "path must" : "path" }, name)),
    make("td", {}, ...kind(schema.default === null ? withoutNull(schema) : schema), preset),
    make("td", {}, ...words(text || "")));
}

function fields(schema, types) {
  const named = schema.$ref ? types[lastName(schema.$ref)] : schema;
  const rows = Object.entries((named && named.properties) || {}).map(
    ([name, each]) => row(name, each, (named.required || []).includes(name), each.description));
  return rows.length ? make("table", {}, make("tbody", {}, ...rows)) : null;
}

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

function curl(path, method, operation) {
  const [name, given] = Object.entries(operation.requestBody?.content || {})[0] || ["", {}];
  const parts = [];
  if (method === "head") parts.push(["-I"]);
  else if (method !== "get" && !(method === "post" && given.example)) parts.push(["-X", method.toUpperCase()]);
  const must = operation.security.length && !operation.security.some((each) => !Object.keys(each).length);
  if (must) parts.push(["-H", '"Authorization: Bearer $KEY"']);
  if (name === "application/x-www-form-urlencoded" && given.example) {
    for (const [key, value] of Object.entries(given.example)) parts.push(["-d", quoted(`${key}=${value}`)]);
  } else if (given.example) {
    parts.push(["-d", quoted(JSON.stringify(given.example))]);
  } else if (name === "application/octet-stream") {
    parts.push(["--data-binary", "@FILE"]);
  }
  return [`curl ${quoted(root + path)}`, ...parts.map((part) => part.join(" "))].join(" \\\n  ");
}

function command(line) {
  const button = make("button", { type: "button" }, "copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(line);
      button.textContent = "copied";
    } catch {
      // Browsers give the clipboard to https and localhost only; the line is selected instead.
      getSelection().selectAllChildren(button.previousSibling);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  });
  return make("div", { class: "command" }, make("pre", { tabindex: "0" }, line), button);
}

function who(operation) {
  if (!operation.security.length) return "open";
  return operation.security.some((each) => !Object.keys(each).length) ? "credential optional" : "";
}

function answers(operation, types, shared) {
  const rows = [];
  for (const [status, told] of Object.entries(operation.responses)) {
    const answer = told.$ref ? shared[lastName(told.$ref)] : told;
    const kinds = Object.entries(answer.content || {}).flatMap(([media, { schema }], index) => [
      ...(index ? [", or "] : []), ...(media === "application/json" ? [] : [media + ": "]),
      ...(streamed(schema) ? ["each "] : []), ...kind(schema)]);
    rows.push(make("tr", {}, make("td", {}, make("span", { class: "path" }, status)), make("td", {}, ...kinds),
      make("td", {}, ...words(answer.description))));
  }
  const good = Object.keys(operation.responses).filter((status) => status < "400").length;
  return [
    make("h4", {}, "Answers"),
    make("table", {}, make("tbody", {}, ...rows.slice(0, good))),
    make("details", {}, make("summary", {}, "Errors"), make("table", {}, make("tbody", {}, ...rows.slice(good)))),
  ];
}

function article(path, method, operation, described) {
  const types = described.components.schemas;
  const parts = [
    make("h3", {}, make("span", { class: "method " + method }, method.toUpperCase()),
      make("a", { href: "#" + operation.operationId, class: "path" }, path),
      make("span", { class: "who" }, who(operation))),
    make("p", {}, ...words(operation.summary)),
    ...paragraphs(operation.description || ""),
    command(curl(path, method, operation)),
  ];
  if (operation.parameters) {
    const rows = operation.parameters.map((each) => row(each.name, each.schema, each.required, each.description));
    parts.push(make("h4", {}, "Parameters"), make("table", {}, make("tbody", {}, ...rows)));
  }
  for (const [media, { schema }] of Object.entries(operation.requestBody?.content || {})) {
    const form = media === "application/x-www-form-urlencoded" ? " as a form" : "";
    parts.push(make("h4", {}, `Body${form}: `, ...(schema.$ref || !schema.anyOf ? kind(schema) : [])));
    for (const each of schema.anyOf || [schema]) {
      if (schema.anyOf) parts.push(make("p", {}, ...kind(each)));
      parts.push(fields(each, types));
    }
  }
  parts.push(...answers(operation, types, described.components.responses || {}));
  return make("article", { id: operation.operationId }, ...parts.filter(Boolean));
}

function show(described) {
  const groups = new Map(described.tags.map((tag) => [tag.name, []]));
  for (const [path, methods] of Object.entries(described.paths)) {
    for (const method of METHODS) {
      if (method in methods) groups.get(methods[method].tags[0]).push([path, method, methods[method]]);
    }
  }
  const contents = document.getElementById("contents");
  const main = document.getElementById("main");
  document.getElementById("version").textContent = described.info.version;
  main.replaceChildren(make("section", {}, ...paragraphs(described.info.description),
    make("p", {}, "For programs: ", make("a", { href: "openapi.json" }, "openapi.json"), ".")));
  const schemes = Object.values(described.components.securitySchemes).map((each) => make("tr", {},
    make("td", {}, each.type === "apiKey" ? each.name : "Authorization: " + each.scheme[0].toUpperCase() + each.scheme.slice(1)),
    make("td", {}, each.type === "http" && each.scheme === "basic" ? "for tokens" : "a credential"),
    make("td", {}, ...words(each.description))));
  main.append(make("section", {}, make("h2", {}, "Credentials"), make("table", {}, make("tbody", {}, ...schemes)),
    ...paragraphs("Routes marked open answer without one. Two different ones on a request are a 400.")));
  for (const [name, operations] of groups) {
    const shown = operations.filter(([path, method]) => method !== "head" || !described.paths[path].get);
    main.append(make("section", {}, make("h2", {}, name), ...shown.map((each) => article(...each, described))));
    contents.append(make("section", {}, make("h2", {}, name), make("ul", {}, ...shown.map(([path, method, operation]) =>
      make("li", { "data-for": operation.operationId }, make("a", { href: "#" + operation.operationId },
        make("span", { class: "method " + method }, method.toUpperCase()), make("span", { class: "path" }, path)))))));
  }
  const types = Object.entries(described.components.schemas).map(([name, schema]) => make("article", { id: "type-" + name },
    ...[make("h3", {}, make("span", { class: "path" }, name)), ...paragraphs(schema.description || ""),
      fields(schema, described.components.schemas)].filter(Boolean)));
  main.append(make("section", {}, make("h2", {}, "Types"), ...types));
}

function filter(text) {
  const wanted = text.trim().toLowerCase();
  for (const each of document.querySelectorAll("main article")) {
    each.hidden = !each.textContent.toLowerCase().includes(wanted);
    const entry = document.querySelector(`[data-for="${CSS.escape(each.id)}"]`);
    if (entry) entry.hidden = each.hidden;
  }
  for (const each of document.querySelectorAll("#contents section, main > section:has(article)")) {
    each.hidden = !each.querySelector("article:not([hidden]), li:not([hidden])");
  }
}

async function begin() {
  const answer = await fetch(root + "/openapi.json");
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  show(await answer.json());
  const input = document.getElementById("filter");
  input.addEventListener("input", () => filter(input.value));
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

begin().catch((error) => {
  document.getElementById("waiting").textContent = `The description could not be read: ${error.message}`;
});
