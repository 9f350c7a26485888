"""One improvement of a site: intake, data, training, candidate, gate. Killed at any moment, it goes on from there.

    RUN/improve.json       the plan: what was asked, the model it began with, and what is done (Plan)
    RUN/corrections/       the data set as this run sees it: what comes later is for the next run
    RUN/last.pt ... model/ of segmamba.training.loop
    RUN/status.json        segmamba.learning.site.status

Every stage either is found done or is done again: nothing is half.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from segmamba.errors import InputError, Stopped
from segmamba.files.atomic import make_folder, sweep
from segmamba.files.shares import exclusive, is_held
from segmamba.learning.site.layout import LOCK, MOMENT, WAYS, Site
from segmamba.learning.site.plan import begin_plan
from segmamba.learning.site.status import RunStatus, StatusWriter, at_work, read_status
from segmamba.learning.submissions.record import check_sent
from segmamba.training.stop_signals import STOP, StopRequests, stop_signals

log = logging.getLogger(__name__)


def improve(
    site: Site,
    run: str | None = None,
    *,
    way: str | None = None,
    steps: int | None = None,
    model: str = "quick",
    device: Callable[[], str] = lambda: "cpu",
) -> RunStatus:
    """Works until the gate has spoken. See the top of this file.

    Args:
        site: the folder of the site.
        run: the name of one that was begun: it is gone on with, as it was begun; None: a new one.
        way: "finetune" (default) or "retrain".
        steps: of the training; None: as the recipe says.
        model: the first model of a site that has none: a name or a folder.
        device: says on what to work, once torch is needed.

    Returns:
        The run's last status.

    Raises:
        InputError: where something is wrong (the status says it too), or another run of this site is at work.
        Stopped: after a signal, or once there is a file RUN/stop.
    """
    if way not in (None, *WAYS) or (steps is not None and steps < 1):
        raise InputError(f"way {way!r}, {steps} steps: expected one of {', '.join(WAYS)}, and 1 step or more")
    folder = run_folder(site, run, way)
    with _alone(site, folder):
        plan = begin_plan(folder, way, steps)
        status = read_status(folder)
        if status is not None and status.state == "done":
            log.info("run %s is done already", folder.name)
            return status
        (folder / STOP).unlink(missing_ok=True)
        with StatusWriter(folder, plan.way) as status_writer, _reasons(status_writer), stop_signals() as caught:
            from segmamba.learning.site.stages import Stages  # torch: the lock and a first word come before its seconds

            Stages(site, folder, plan, status_writer, StopRequests(caught, folder), model, device).run()
    return status_writer.status


def run_folder(site: Site, run: str | None, way: str | None) -> Path:
    """The folder of a run that is to begin or go on; a new one is made where `run` is None.

    Args:
        site: that is improved.
        run: name of the run; None: a new one.
        way: "finetune" or "retrain", in the name of a new run; None: the first of these.

    Returns:
        The folder.

    Raises:
        InputError: where another run is at work, or nothing was ever sent to the site, of which its name may be
            misspelt: then nothing is made there.
    """
    free_or_refuse(site)
    begun = run is not None and site.run(run).is_dir()
    if not begun:
        check_sent(site.corrections)
    return site.new_run(way or WAYS[0]) if run is None else site.run(run)


def free_or_refuse(site: Site) -> None:
    """Refuses to begin while another run is at work. Raises InputError naming it."""
    if is_held(site.lock):
        name = at_work(site)
        raise InputError(
            f"{f'run {name}' if name else 'another run'} is at work in {site.folder}: one improvement at a time; "
            + (f"wait, or stop it with `segmamba improve {site.folder} --stop {name}`" if name else "wait for its end")
        )


@contextmanager
def _alone(site: Site, folder: Path) -> Iterator[None]:
    make_folder(site.runs)
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(site.lock, MOMENT))
        except InputError:  # another run was quicker
            with suppress(OSError):
                folder.rmdir()  # made for this one; what holds anything stays
            raise
        sweep(make_folder(folder))
        held.enter_context(exclusive(folder / LOCK, MOMENT))
        yield


@contextmanager
def _reasons(status_writer: StatusWriter) -> Iterator[None]:
    """Whatever ends the run early is said in its status."""
    try:
        yield
    except (Stopped, KeyboardInterrupt):
        step = f" after step {status_writer.status.step}" if status_writer.status.state == "training" else ""
        status_writer.begin("stopped", f"was stopped{step}; it can be resumed")
        (status_writer.folder / STOP).unlink(missing_ok=True)
        raise
    except InputError as error:
        status_writer.begin("failed", str(error))
        raise
    except BaseException as error:
        status_writer.begin("failed", f"unexpected: {type(error).__name__}: {error}")
        raise
