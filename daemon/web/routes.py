"""Every route of the LAN face, in one table; what is not in it is 404 without reaching an upstream.

Rule: `docs/http.md` describes each of them, and a test says so.
"""

from __future__ import annotations

from typing import Any

from tornado.web import Application

from daemon.house import House
from daemon.web import accounts, anthropic, classic, docs, ollama, ollama_admin, openai, own, own_keys, system, tokens
from daemon.web.base import Handler, UnknownRoute
from daemon.web.inference import Carriers, carriers

ROUTES: tuple[tuple[str, type[Handler]], ...] = (
    (r"/", ollama.Root),
    (r"/health", system.Health),
    (r"/ready", system.Ready),
    (r"/metrics", system.MetricsPage),
    (r"/api/version", ollama.Version),
    (r"/api/tags", ollama.Tags),
    (r"/api/ps", ollama.Running),
    (r"/api/show", ollama.Show),
    (r"/tags", ollama.Tags),
    (r"/api/pull", ollama_admin.Pull),
    (r"/api/push", ollama_admin.Push),
    (r"/api/create", ollama_admin.Create),
    (r"/api/copy", ollama_admin.Copy),
    (r"/api/delete", ollama_admin.Delete),
    (r"/api/blobs/(sha256[:-][0-9a-f]{64})", ollama_admin.Blob),
    *((route.path, ollama.Inference) for route in ollama.INFERENCE),
    (r"/generate", ollama.Inference),
    (r"/generate/(.+)", ollama.Inference),
    (r"/chat", ollama.Inference),
    (r"/request", classic.Request),
    (r"/v1/models", openai.Models),
    (r"/v1/models/(.+)", openai.Model),
    *((route.path, openai.Inference) for route in openai.INFERENCE),
    (r"/v1/messages/count_tokens", anthropic.CountTokens),
    *((route.path, anthropic.Inference) for route in anthropic.INFERENCE),
    *own.ROUTES,
    *docs.ROUTES,
    *accounts.ROUTES,
    *own_keys.ROUTES,
    *tokens.ROUTES,
)

# The POST routes that do not go through the application.
RELAYED = (*ollama.INFERENCE, *classic.INFERENCE, *openai.INFERENCE, *anthropic.INFERENCE)


def application(house: House) -> Application:
    """The LAN face over `house`."""
    arguments: dict[str, Any] = {"house": house}
    return Application(
        [(pattern, handler, arguments) for pattern, handler in ROUTES],
        default_handler_class=UnknownRoute,
        default_handler_args=arguments,
        serve_traceback=False,
        autoreload=False,
        compress_response=False,
        description=docs.Made(ROUTES, RELAYED),
    )


def relayed(house: House) -> Carriers:
    """What carries the POST routes that do not go through the application, by path."""
    return Carriers(carriers(house, RELAYED) | classic.exact(house), classic.beneath(house))
