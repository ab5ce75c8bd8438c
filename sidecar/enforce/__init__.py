"""The doors: where what an agent does passes by, and waits for a decision (`proto/DOORS.md`).

Rules: a door holds none of its own about who may do what. It lets pass only what an ALLOW was given for, byte for byte;
everything else, an error of its own too, is a refusal that says why.
"""

__all__: list[str] = []
