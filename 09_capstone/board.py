"""The log of a run that TensorBoard reads."""

import os
import platform
import textwrap
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from tiny_transformer.engineering.reference import naming


class Board:
    """The log of a run for TensorBoard, in which what a run before it did from `start` on is void.

    It lies in the run folder itself, whose name is then that of the run. PyTorch's writer has a
    thread of its own, which tells of a full disk by a traceback.
    """

    def __init__(self, folder: Path, start: int):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{platform.node()}.{os.getpid()}"
        self.file = (folder / name).open("ab")
        self.records = RecordWriter(self.file)
        self.write(Event(file_version="brain.Event:2", step=start))
        self.write(Event(session_log=SessionLog(status=SessionLog.START), step=start))

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, name: str, value: float | str, step: int) -> None:
        """A number becomes a point of the curve `name`; a text is shown as it is, line by line."""
        if isinstance(value, str):
            code = textwrap.indent(value, "    ", lambda line: True)  # of Markdown
            summary = Summary.Value(
                tag=name,
                metadata=create_summary_metadata(name, ""),
                tensor=TensorProto(dtype=DT_STRING, string_val=[code.encode()]),
            )
        else:
            summary = Summary.Value(tag=name, simple_value=value)
        self.write(Event(summary=Summary(value=[summary]), step=step))

    def write(self, event: Event) -> None:
        event.wall_time = time.time()
        with naming(self.file.name):
            self.records.write(event.SerializeToString())
            self.records.flush()
