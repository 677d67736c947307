"""Search and tag a catalogue in the browser and over HTTP: ``xmodal serve`` or ``python -m serve``.

``create_app(settings)`` gives the ASGI application. It needs the libraries of ``xmodal[serve]``.
"""

from __future__ import annotations
