"""Other servers alone behind the API: no model runs here, and everything else is as for a model folder."""

import signal
import time
from collections.abc import Callable

from caslon.server.admission import check_exposure
from caslon.server.app import app_of
from caslon.server.models import Models
from caslon.server.run import DrainingServer, Ready, listening_socket, url_of
from caslon.server.settings import ServerSettings


def serve_upstreams(settings: ServerSettings, *, on_ready: Callable[[Ready], None]) -> None:
    """Offer the models of `settings.upstream` until SIGTERM or Ctrl-C, as `run.serve` does a model folder."""
    check_exposure(settings)
    began = time.perf_counter()
    with listening_socket(settings.host, settings.port) as listener:
        models = Models(None, settings)
        server = DrainingServer(app_of(models, settings), settings, models)
        ready = Ready.of(models, url_of(listener, settings), time.perf_counter() - began)
        server.on_started = lambda: on_ready(ready)
        server.run(sockets=[listener])
    if server.stopped_by == signal.SIGINT:
        raise KeyboardInterrupt
