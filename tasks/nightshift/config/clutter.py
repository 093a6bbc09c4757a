"""What systems leave among the files of people: one list for folders, archives, arrays and the store.

A name is left behind when it begins with a dot (hidden on every Unix: `.DS_Store`, `._photo.jpg` of
AppleDouble, `.Trashes`, `.@__thumb` of QNAP, `.ipynb_checkpoints`), or is one of these, in any case.
"""

from typing import Final

LEFT_BEHIND: Final = "hidden, or left behind by a system"
NAMES: Final = frozenset(
    {
        # Windows
        *("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *("$recycle.bin", "recycler", "system volume information"),
        # macOS: folders beside the files in archives, icons of folders, what shares keep
        *("__macosx", "icon\r", "network trash folder", "temporary items"),
        # Linux
        "lost+found",
        # Synology and QNAP: thumbnails, snapshots and bins of shares
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp"),
        # programs that show pictures
        *("picasa.ini", "zbthumbnail.info"),
    }
)
ENDS: Final = ("_$folder$",)  # empty objects that Hadoop's clients leave for folders
BEGINS: Final = (".", "~$")  # the second: locks of office programs


def is_clutter(path: str) -> bool:
    """Whether any part of a path, with slashes, is one that a system leaves behind."""
    return any(
        part.startswith(BEGINS) or part.endswith(ENDS) or part.lower() in NAMES for part in path.split("/")
    )
