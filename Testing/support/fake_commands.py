"""Commands of the engine that a test answers itself: what was asked for can be looked at, and no process is started."""

from types import SimpleNamespace


class Commands:
    """all: what was asked for, in turn, each with `arguments`, `program`, `isDone` and `isCancelled`."""

    def __init__(self, session, monkeypatch):
        self.all = []
        monkeypatch.setattr(session, "command", self._command)

    @property
    def open(self):
        return [command for command in self.all if not (command.isDone or command.isCancelled)]

    def reply(self, name: str, answer) -> None:
        """Ends the first open command of that name."""
        self._end(name).onDone(answer)

    def fail(self, name: str, text: str) -> None:
        from SegMambaSlicerLib.engine.client import EngineError

        self._end(name).onError(EngineError("input", text))

    def _end(self, name: str):
        found = [command for command in self.open if name in " ".join(command.arguments).split()]
        assert found, f"nobody has asked for {name}: {[command.arguments for command in self.open]}"
        found[0].isDone = True
        return found[0]

    def _command(self, arguments, onDone=None, onError=None, program=None):
        command = SimpleNamespace(
            arguments=arguments, program=program, onDone=onDone, onError=onError, isDone=False, isCancelled=False
        )
        command.cancel = lambda: setattr(command, "isCancelled", True)
        self.all.append(command)
        return command
