// What the official JavaScript SDKs get from the gate: `node clients.mjs real|scripted`, one JSON document out.
// GATE_URL, GATE_KEY, MODEL come by the environment. Judges nothing: tests/test_sdk_javascript.py does.

import Anthropic from '@anthropic-ai/sdk';
import { Ollama } from 'ollama';
import OpenAI from 'openai';

const url = process.env.GATE_URL;
const key = process.env.GATE_KEY;
const model = process.env.MODEL;
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, authToken: key, apiKey: null, maxRetries: 0 });
const ollama = new Ollama({ host: url, headers: { Authorization: `Bearer ${key}` } });

const messages = [{ role: 'user', content: 'Say hello.' }];
const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const weather = { type: 'function', function: { name: 'weather', description: 'd', parameters } };

async function all(iterable) {
  const items = [];
  for await (const item of iterable) items.push(item);
  return items;
}

async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    return { kind: error.constructor.name, status: error.status ?? error.status_code, message: error.message };
  }
  return null;
}

async function real() {
  const asked = { model, messages, max_tokens: 4, temperature: 0 };
  const { data: chat, response } = await openai.chat.completions.create(asked).withResponse();
  const chunks = await all(
    await openai.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } }),
  );
  const item = { model, input: 'Say hello.', max_output_tokens: 4, temperature: 0 };
  const answered = await openai.responses.create(item);
  const events = await all(await openai.responses.create({ ...item, stream: true }));
  const vectors = await openai.embeddings.create({ model, input: ['one', 'two'] });
  const message = await anthropic.messages.create(asked);
  const stream = anthropic.messages.stream(asked);
  const texts = [];
  stream.on('text', (text) => texts.push(text));
  const final = await stream.finalMessage();
  const counted = await anthropic.messages.countTokens({ model, messages });
  const options = { temperature: 0, num_predict: 4 };
  const native = await ollama.chat({ model, messages, options });
  const lines = await all(await ollama.chat({ model, messages, options, stream: true }));
  const embedded = await ollama.embed({ model, input: ['one', 'two'] });
  return {
    openai: {
      text: chat.choices[0].message.content,
      usage: chat.usage,
      request: response.headers.get('x-request-id'),
      streamed: chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? '').join(''),
      streamed_usage: chunks.at(-1).usage,
      response: answered.output_text,
      events: events.map((event) => event.type),
      dimensions: vectors.data.map((each) => each.embedding.length),
      numbers: vectors.data.every((each) => each.embedding.some((number) => number !== 0)),
      models: (await all(openai.models.list())).map((each) => each.id),
      missing: await refusal(openai.chat.completions.create({ ...asked, model: 'nobody' })),
    },
    anthropic: {
      text: message.content[0].text,
      stop: message.stop_reason,
      usage: message.usage,
      streamed: texts.join(''),
      final: final.content[0].text,
      final_usage: final.usage,
      counted: counted.input_tokens,
      models: (await all(anthropic.models.list())).map((each) => each.id),
      missing: await refusal(anthropic.messages.create({ ...asked, model: 'nobody' })),
    },
    ollama: {
      text: native.message.content,
      streamed: lines.map((line) => line.message.content).join(''),
      counts: [lines.at(-1).prompt_eval_count, lines.at(-1).eval_count],
      dimensions: embedded.embeddings.map((vector) => vector.length),
      models: (await ollama.list()).models.map((each) => each.name),
      missing: await refusal(ollama.chat({ model: 'nobody', messages })),
    },
  };
}

// The scripted upstream answers each of these with the same two tool calls, then a stream that breaks, three times.
async function scripted() {
  const asked = { model, messages, tools: [weather] };
  const whole = await openai.chat.completions.create(asked);
  const final = await openai.chat.completions.stream(asked).finalChatCompletion();
  const items = await openai.responses.create({
    model,
    input: 'Rain?',
    tools: [{ type: 'function', name: 'weather', parameters, strict: false }],
  });
  const tools = [{ name: 'weather', input_schema: parameters }];
  const message = await anthropic.messages.create({ model, max_tokens: 99, messages, tools });
  const streamed = await anthropic.messages.stream({ model, max_tokens: 99, messages, tools }).finalMessage();
  const native = await ollama.chat({ model, messages, tools: [weather] });
  const cities = (calls) => calls.map((call) => JSON.parse(call.function.arguments).city);
  const used = (blocks) => blocks.filter((block) => block.type === 'tool_use').map((block) => block.input.city);
  const broken = {
    openai: await refusal(openai.chat.completions.create({ model, messages, stream: true }).then(all)),
    anthropic: await refusal(anthropic.messages.stream({ model, max_tokens: 9, messages }).finalMessage()),
    ollama: await refusal(ollama.chat({ model, messages, stream: true }).then(all)),
  };
  return {
    openai: cities(whole.choices[0].message.tool_calls),
    openai_streamed: cities(final.choices[0].message.tool_calls),
    responses: items.output.filter((item) => item.type === 'function_call').map((item) => JSON.parse(item.arguments).city),
    anthropic: used(message.content),
    anthropic_streamed: used(streamed.content),
    ollama: native.message.tool_calls.map((call) => call.function.arguments.city),
    thought: [whole.choices[0].message.reasoning_content, message.content[0].thinking, native.message.thinking],
    broken,
  };
}

console.log(JSON.stringify(await { real, scripted }[process.argv[2]]()));
