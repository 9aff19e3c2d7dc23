"""The built-in engine: a small real model to try the gate with, where no Ollama answers.

`install.py` fetches it, `child.py` is its process, `supervisor.py` keeps that process running. It speaks OpenAI's
dialect on a loopback port. Rule: nothing else of the daemon knows how the engine is made; it gets a URL.
"""
