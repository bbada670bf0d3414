"""What Snakemake says while a study runs. `profiles/default` names this plug-in as its logger.

Snakemake finds its logger plug-ins by the name of their package, so this one stands beside
``cml_bench``. Every start of Snakemake in this environment imports it, so it imports the rest only
when a study of ours begins. ``--verbose``, a dry run and the like get Snakemake's own output.

The Snakefile speaks to it by records with an attribute ``cml_bench``: ``start`` comes with the plan
and its results, ``end`` with what stands at the end.
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

if TYPE_CHECKING:
    from cml_bench.study.view import Poller, View

# Of Snakemake's remarks; the last three are all that --report, --unlock and --lint say.
_TOLD = (
    "Nothing to be done",
    "Will exit after finishing",
    "Report created",
    "Unlocked",
    "Congratulations",
)
_JOBS = {  # rule -> what its jobs make
    "fetch": "data sets",
    "train": "trainings",
    "figure": "figures",
    "table": "tables",
    "report": "page",
}
# What the record of the failed job says, too.
_REPEATED = ("Exiting because a job execution failed", "RuleException:\nCalledProcessError")
_LOG_LINES = 12  # of a failed job's log


class LogHandler(LogHandlerBase):
    """The handler that Snakemake makes once, in the process that a user has started."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        self._view: View | None = None
        self._poller: Poller | None = None
        self._messages: dict[int, str] = {}
        self._ended = False
        self._full: logging.Handler | None = None
        if any((settings.verbose, settings.dryrun, settings.debug_dag, settings.printshellcmds)):
            from snakemake.logging import ColorizingTextHandler

            stream = sys.stdout if settings.stdout else sys.stderr
            self._full = ColorizingTextHandler(nocolor=settings.nocolor, stream=stream)

    writes_to_stream = True
    writes_to_file = False
    has_filter = False  # Snakemake's own filter obeys --quiet
    has_formatter = False
    needs_rulegraph = False

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, or pass over it."""
        try:
            ours = getattr(record, "cml_bench", None)
            if ours is not None:
                self._start_or_end(ours, record)
            elif self._full is not None:
                self._full.setFormatter(self.formatter)
                self._full.emit(record)
            elif not self._ended:
                self._told(record)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Take the bar away, however Snakemake ends."""
        self._stop()
        super().close()

    # -- the study --

    def _start_or_end(self, ours: str, record: logging.LogRecord) -> None:
        if ours == "end":
            self._stop()
            self._ended = True
        print(record.getMessage(), flush=True)
        if ours == "start" and self._full is None:
            from rich.console import Console

            from cml_bench.study.view import Poller, View
            from cml_bench.study.watching import Watch

            said: Any = record
            console = Console(
                stderr=True, highlight=False, no_color=self.common_settings.nocolor or None
            )
            self._view = View(Watch(said.plan, Path(said.results), fresh=True), console)
            self._poller = Poller(self._view)
            self._poller.poll()
            self._view.start()
            self._poller.start()

    def _stop(self) -> None:
        if self._poller is not None:
            self._poller.stop()
            self._poller = None
        if self._view is not None:
            self._view.stop()
            self._view = None

    def _say(self, text: str, style: str | None = None) -> None:
        if self._view is not None:
            self._view.say(text, style)
        else:
            print(text, file=sys.stderr, flush=True)

    # -- Snakemake's records --

    def _told(self, record: logging.LogRecord) -> None:
        event, said = getattr(record, "event", None), record.__dict__
        if event == LogEvent.RUN_INFO:
            counts = {_JOBS[rule]: n for rule, n in said["stats"].items() if rule in _JOBS}
            if counts:
                self._say(f"jobs to do: {', '.join(f'{job} {n}' for job, n in counts.items())}")
        elif event == LogEvent.JOB_INFO:
            self._began(said)
        elif event == LogEvent.JOB_FINISHED and self._view is not None:
            self._view.others.pop(said["job_id"], None)
        elif event == LogEvent.JOB_ERROR:
            self._failed(said)
        elif event == LogEvent.GROUP_ERROR or (
            event in (None, LogEvent.ERROR) and record.levelno >= logging.WARNING
        ):
            self._warned(record)
        elif event is None and record.levelno == logging.INFO:
            text = record.getMessage()
            if text.startswith(_TOLD) or "has been submitted" in text:
                self._say(text)

    def _began(self, said: dict[str, Any]) -> None:
        message = said["rule_msg"] or ""
        self._messages[said["jobid"]] = message or said["rule_name"]
        if self._view is not None and message and said["rule_name"] != "train":
            self._view.others[said["jobid"]] = message
            if self._view.live is None:
                self._say(message)

    def _failed(self, said: dict[str, Any]) -> None:
        from cml_bench.system import stops

        if self._view is not None:
            self._view.others.pop(said["jobid"], None)
        if stops.asked.is_set():  # a job that Ctrl-C has ended did not fail
            return
        job = self._messages.get(said["jobid"], said["rule_name"])
        more = f" {said['rule_msg']}" if said["rule_msg"] else ""
        self._say(f"failed: {job}.{more}", "red")
        for log in said["log"]:
            lines = _last_lines(Path(log))
            if lines:
                self._say("\n".join([f"its log, {log}:", *(f"  {line}" for line in lines)]))

    def _warned(self, record: logging.LogRecord) -> None:
        from cml_bench.system import stops

        text = record.getMessage().strip()
        if stops.asked.is_set() or text.startswith(_REPEATED):
            return
        error = record.levelno >= logging.ERROR
        self._say(text if error else f"warning: {text}", "red" if error else "yellow")


def _last_lines(log: Path) -> list[str]:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return []
    return lines[-_LOG_LINES:]
