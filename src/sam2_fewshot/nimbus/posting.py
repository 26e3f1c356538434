"""Post the form to the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sam2_fewshot.nimbus.server import Patience, Server

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATIENCE = Patience(longest=4.0, total=10.0, connect=10.0, read=30.0)
"""The user waits in front of an empty dialog, and can ask for the form again at any time."""


def post_form(api_url: str, token: str, image: str, form: Mapping[str, Any], patience: Patience = _PATIENCE) -> None:
    """Store the form as that of an image; it takes the place of the one before.

    Posting twice does no harm, so a request whose answer got lost is sent again.

    Parameters
    ----------
    api_url
        Address of the server's API, such as ``http://localhost:8080/api/v1``.
    token
        The user's session token.
    image
        Name of the worker's image, as the server calls it.
    form
        The fields by their names.
    patience
        How long to wait for a server that is busy or gone.

    Raises
    ------
    ServerError
        If the server cannot be reached or refuses.
    """
    with Server(api_url, token, patience) as server:
        doing = f"storing the form of {image}"
        server.send(doing, "POST", "worker_interface", dict(form), parameters={"image": image}, repeatable=True)
