"""Which model answers: the one that was asked for, or the one that its alias means at the time.

One thread looks at the alias, loads and warms a new version beside the old one and puts it in its place. A
version that cannot be fetched, verified or loaded changes nothing but what the endpoint says of itself. The
same thread looks for the fastest runtime, so that only one thing at a time takes cores from the answers.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from nightshift.errors import InputError, NightshiftError, OutageError
from nightshift.inference import model_file
from nightshift.inference.model_file import ModelFile
from nightshift.serving.events import say, without_logins
from nightshift.serving.loaded_model import LoadedModel, Options, fastest, load, warm_up
from nightshift.serving.metrics import Metrics
from nightshift.serving.recent_images import RecentImages

REFUSED_SECONDS: Final = 60.0  # until a version that was refused is fetched again: it may be signed by then
STOP_SECONDS: Final = 5.0
FIXED: Final = "this address means one model and is not followed"


class ModelWatcher:
    """`served` is the model that answers, None while there is none; `status` is `ok` or what is wrong.

    `recent` are the images that decide on the runtime.
    """

    def __init__(self, uri: str, options: Options, metrics: Metrics) -> None:
        """Raises InputError when `uri` is an address of the registry that means nothing."""
        self.uri = uri
        self.served: LoadedModel | None = None
        self.status = "ok"
        self._alias = _alias_of(uri)
        self._options, self._metrics = options, metrics
        self._refused: tuple[str, float] | None = None  # a version, and when it may be tried again
        self._chosen: ModelFile | None = None  # the model of which the runtimes were compared
        self._wake = threading.Event()
        self._stopping = False
        self.recent = RecentImages(self._wake)
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def open(self, *, wait: bool) -> None:
        """Load the first model. With `wait`, a missing alias and a silent registry are waited for.

        Raises InputError for a model that cannot be used, and for what `wait` does not cover.
        """
        if wait and self._alias is None:
            raise InputError(
                f"--wait waits for an alias, and {self.uri} is none; give models:/NAME@ALIAS, or leave it out"
            )
        try:
            if wait and self._version() is None:
                self.status = self._nothing()
            else:
                self._swap(load(model_file.load(self.uri), self._options, None))
        except OutageError as error:
            if not wait:
                raise
            self.status = without_logins(str(error))
        if self.served is None:
            say("waiting", model=self.uri, sentence=self.status)
        elif self._alias is None:
            self.status = FIXED

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Follow no more; a model that is being loaded is waited for, a registry that is silent is not."""
        self._stopping = True
        self._wake.set()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._options.poll_seconds)
            self._wake.clear()
            if self._stopping:
                return
            self._guard(self._poll)
            self._guard(self._choose)

    def _guard(self, step: Callable[[], None]) -> None:
        """The thread survives whatever happens in it."""
        try:
            step()
        except Exception as error:
            what = str(error) if isinstance(error, NightshiftError) else repr(error)
            self._say_once(without_logins(what))

    def _poll(self) -> None:
        """Take over the version that the alias means, if it is another one."""
        if self._alias is None:
            return
        try:
            version = self._version()
            if version is None and self.served is not None:
                raise InputError(self._nothing())
        except Exception:
            self._metrics.polls_failed.inc()
            raise
        if version is None:
            self.status = self._nothing()
            return
        if self.served is not None and version == self.served.model.version:
            self._refused, self.status = None, "ok"
        elif self._refused is None or version != self._refused[0] or time.monotonic() > self._refused[1]:
            self._load_version(version)

    def _load_version(self, version: str) -> None:
        name, _ = self._alias or ("", "")
        try:
            model = model_file.load(f"models:/{name}/{version}")
            sample = self.recent.sample()
            served = load(model._replace(uri=self.uri), self._options, sample)
        except Exception as error:
            if not isinstance(error, OutageError):
                self._refused = (version, time.monotonic() + REFUSED_SECONDS)
                self._metrics.models_refused.inc()
            raise
        if sample is not None and sample.suits(served.settings):
            self._chosen = served.model
        self._swap(served)
        self._refused, self.status = None, "ok"

    def _choose(self) -> None:
        """Compare the runtimes once for each model, when there are enough images."""
        served = self.served
        if served is None or self._options.runtime != "auto" or served.model is self._chosen:
            return
        sample = self.recent.sample()
        if sample is None or not sample.suits(served.settings):
            return
        self._chosen = served.model
        session = fastest(served.model, sample)
        if session.runtime != served.session.runtime:
            warm_up(session, served.settings, self._options.max_batch)
            self._swap(served.in_session(session))

    def _swap(self, served: LoadedModel) -> None:
        """From here on new images are prepared and predicted by `served`."""
        before, self.served = self.served, served
        facts = {"version": served.model.version, "sha256": served.model.sha256}
        self._metrics.answers(**facts, uri=self.uri, runtime=served.session.runtime)
        old = before.model.version if before else ""
        say("serving", model=self.uri, **facts, runtime=served.session.runtime, replaces=old)

    def _version(self) -> str | None:
        """What the alias means now."""
        from nightshift.tracking import registry

        return registry.alias_version(*self._alias) if self._alias else None

    def _nothing(self) -> str:
        if self.served is None:
            return f"no version has the alias {self.uri} yet; it is waited for"
        return f"no version has the alias {self.uri} any more; version {self.served.model.version} goes on"

    def _say_once(self, sentence: str) -> None:
        if sentence != self.status:
            self.status = sentence
            version = self.served.model.version if self.served else ""
            say("not_followed", model=self.uri, sentence=sentence, still_serving=version)


def _alias_of(uri: str) -> tuple[str, str] | None:
    if not uri.startswith("models:/"):
        return None
    from nightshift.tracking import registry

    return registry.alias_of(uri)
