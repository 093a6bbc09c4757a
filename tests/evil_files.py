"""Files that end, stop or surprise the process that decodes them; a module that this process can import."""

import multiprocessing
import os
import time


class Crash(bytes):
    """A file whose decoding ends the process, wherever it is decoded; the parent may ask for its length."""

    def __len__(self) -> int:
        if multiprocessing.parent_process():
            os.abort()
        return super().__len__()


class Hang(bytes):
    def __len__(self) -> int:
        if multiprocessing.parent_process():
            time.sleep(600)
        return super().__len__()


class Surprise(bytes):
    def __len__(self) -> int:
        if multiprocessing.parent_process():
            raise RuntimeError("nobody foresaw this")
        return super().__len__()
