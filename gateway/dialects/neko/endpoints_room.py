"""The room over neko's REST API: settings, control, and the desktop.

There is no desktop behind the gateway. Reads show an empty one, and writes are refused with a
status that neko's own document has for it.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.responses import Response

from gateway.core.errors import BadRequest, LimitExceeded, NotFound
from gateway.dialects.neko.control import Control, SettingsChange
from gateway.dialects.neko.errors import Refused
from gateway.dialects.neko.login import NekoCaller
from gateway.dialects.neko.render import control
from gateway.dialects.neko.schema import (
    BroadcastRequest,
    BroadcastStatus,
    ClipboardText,
    ControlStatus,
    ErrorMessage,
    KeyboardMap,
    KeyboardModifiers,
    NekoSettings,
    ScreenConfiguration,
    ScreenRequest,
)
from gateway.dialects.neko.service import service_of
from gateway.dialects.neko.style import ADMIN, row
from gateway.http.endpoint import AnyCall, AnyEndpoint, Call, Nothing, reply

Handler = Callable[[AnyCall], Awaitable[Response]]

ASKED: Final = ErrorMessage(202, "control request sent")


async def get_settings(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Show how the room is run."""
    return reply(service_of(call.context).control.room_of(call.caller).shown)


async def set_settings(call: Call[NekoCaller, Nothing, SettingsChange]) -> Response:
    """Change how the room is run."""
    await service_of(call.context).control.change_settings(call.caller, call.body)
    return Response(status_code=204)


# --- control


async def control_status(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Show who has control."""
    service_of(call.context).control.check_may_host(call.caller)
    return reply(control(service_of(call.context).control.host_id(call.caller)))


async def control_request(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Take control, or ask the host for it."""
    has_control = await service_of(call.context).control.request(call.caller)
    return Response(status_code=204) if has_control else reply(ASKED, 202)


def _does(action: Callable[[Control, NekoCaller], Awaitable[None]]) -> Handler:
    async def do(call: AnyCall) -> Response:
        await action(service_of(call.context).control, call.caller)
        return Response(status_code=204)

    return do


async def control_give(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Give control to another session."""
    service_of(call.context).control.check_may_host(call.caller)
    target = await service_of(call.context).session(call.path["id"], call.caller)
    await service_of(call.context).control.give(call.caller, target)
    return Response(status_code=204)


# --- the desktop


def _nothing(_: AnyCall) -> None:
    return


def _may_watch(call: AnyCall) -> None:
    if not call.caller.profile.can_watch:
        raise Refused(403, "session cannot watch")


def _may_host(call: AnyCall) -> None:
    service_of(call.context).control.check_may_host(call.caller)


def _is_host(call: AnyCall) -> None:
    host = service_of(call.context).control.room_of(call.caller).host
    if call.caller.session is None or host != call.caller.session.id:
        raise Refused(403, "session is not host")


def _has_clipboard(call: AnyCall) -> None:
    _is_host(call)
    if not call.caller.profile.can_access_clipboard:
        raise Refused(403, "session cannot access clipboard")


def _shows(value: object, check: Callable[[AnyCall], None] = _nothing) -> Handler:
    """Return a handler that shows a part of the desktop that there is not."""

    async def show(call: AnyCall) -> Response:
        check(call)
        return reply(value)

    return show


def _refuses(status: int, message: str, check: Callable[[AnyCall], None] = _nothing) -> Handler:
    """Return a handler that refuses what needs a desktop."""

    async def refuse(call: AnyCall) -> Response:
        check(call)
        raise Refused(status, message)

    return refuse


async def screen_change(call: Call[NekoCaller, Nothing, ScreenRequest]) -> Response:
    """Refuse any other screen."""
    wanted, shown = call.body, ScreenConfiguration()
    if (wanted.width, wanted.height, wanted.rate) != (shown.width, shown.height, shown.rate):
        raise Refused(422, "cannot set screen size")
    return reply(shown)


async def broadcast_start(call: Call[NekoCaller, Nothing, BroadcastRequest]) -> Response:
    """Refuse: there is nothing to broadcast."""
    if not call.body.url:
        raise Refused(400, "missing broadcast URL")
    raise Refused(422, "there is nothing to broadcast")


_FREE: Final = {204: None}

ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    row(
        "GET", "/api/room/settings", get_settings, "How the room is run", extra=ADMIN,
        returns={200: NekoSettings},
    ),
    row(
        "POST", "/api/room/settings", set_settings, "Change how the room is run", extra=ADMIN,
        body=SettingsChange, returns=_FREE, errors=(BadRequest, LimitExceeded),
    ),
    row(
        "GET", "/api/room/control", control_status, "Who has control", returns={200: ControlStatus},
        errors=(LimitExceeded,),
    ),
    row(
        "POST", "/api/room/control/request", control_request,
        "Take control, or ask the host for it", returns={202: ErrorMessage, **_FREE},
        errors=(LimitExceeded,),
    ),
    row(
        "POST", "/api/room/control/release", _does(Control.release), "Give control up",
        returns=_FREE, errors=(LimitExceeded,), name="control_release",
    ),
    row(
        "POST", "/api/room/control/take", _does(Control.take), "Take control, whoever has it",
        extra=ADMIN, returns=_FREE, errors=(LimitExceeded,), name="control_take",
    ),
    row(
        "POST", "/api/room/control/give/{id}", control_give, "Give control to another session",
        returns=_FREE, errors=(BadRequest, NotFound, LimitExceeded),
    ),
    row(
        "POST", "/api/room/control/reset", _does(Control.reset), "Take control from whoever has it",
        extra=ADMIN, returns=_FREE, errors=(LimitExceeded,), name="control_reset",
    ),
    row(
        "GET", "/api/room/screen", _shows(ScreenConfiguration(), _may_watch), "The screen",
        returns={200: ScreenConfiguration}, name="screen_configuration",
    ),
    row(
        "POST", "/api/room/screen", screen_change, "Change the screen", extra=ADMIN,
        body=ScreenRequest, returns={200: ScreenConfiguration}, errors=(BadRequest, LimitExceeded),
    ),
    row(
        "GET", "/api/room/screen/configurations", _shows([ScreenConfiguration()]),
        "Screens that there may be", extra=ADMIN, returns={200: list[ScreenConfiguration]},
        name="screen_configurations",
    ),
    row(
        "GET", "/api/room/screen/cast.jpg",
        _refuses(400, "screencast pipeline is not enabled", _may_watch),
        "The last picture of a screencast: there is none", errors=(BadRequest,), name="screen_cast",
    ),
    row(
        "GET", "/api/room/screen/shot.jpg", _refuses(403, "there is no screen"),
        "A picture of the screen: there is none", extra=ADMIN, name="screen_shot",
    ),
    row(
        "GET", "/api/room/broadcast", _shows(BroadcastStatus(is_active=False)),
        "Whether something is broadcast: no", extra=ADMIN, returns={200: BroadcastStatus},
        name="broadcast_status",
    ),
    row(
        "POST", "/api/room/broadcast/start", broadcast_start, "Broadcast: there is nothing to",
        extra=ADMIN, body=BroadcastRequest, errors=(BadRequest, LimitExceeded),
    ),
    row(
        "POST", "/api/room/broadcast/stop", _refuses(422, "server is not broadcasting"),
        "Stop: nothing is broadcast", extra=ADMIN, errors=(LimitExceeded,), name="broadcast_stop",
    ),
    row(
        "GET", "/api/room/clipboard", _shows(ClipboardText(), _has_clipboard),
        "The clipboard: it is empty", returns={200: ClipboardText}, name="clipboard_text",
    ),
    row(
        "POST", "/api/room/clipboard", _refuses(403, "there is no clipboard", _has_clipboard),
        "Fill the clipboard: there is none", name="clipboard_set_text",
    ),
    row(
        "GET", "/api/room/clipboard/image.png",
        _refuses(403, "there is no clipboard", _has_clipboard),
        "A picture on the clipboard: there is none", name="clipboard_get_image",
    ),
    row(
        "GET", "/api/room/keyboard/map", _shows(KeyboardMap(), _is_host),
        "The keyboard's layout: there is none", returns={200: KeyboardMap}, name="keyboard_map",
    ),
    row(
        "POST", "/api/room/keyboard/map", _refuses(403, "there is no keyboard", _is_host),
        "Change the layout: there is no keyboard", name="keyboard_map_set",
    ),
    row(
        "GET", "/api/room/keyboard/modifiers", _shows(KeyboardModifiers(), _is_host),
        "Which modifier keys are held: none", returns={200: KeyboardModifiers},
        name="keyboard_modifiers",
    ),
    row(
        "POST", "/api/room/keyboard/modifiers", _refuses(403, "there is no keyboard", _is_host),
        "Hold modifier keys: there is no keyboard", name="keyboard_modifiers_set",
    ),
    row(
        "POST", "/api/room/upload/drop", _refuses(400, "unable to upload file", _may_host),
        "Drop a file: there is nowhere to", errors=(BadRequest, LimitExceeded), name="upload_drop",
    ),
    row(
        "POST", "/api/room/upload/dialog",
        _refuses(422, "file chooser dialog is not open", _may_host),
        "Choose a file: no dialog is open", errors=(LimitExceeded,), name="upload_dialog",
    ),
    row(
        "DELETE", "/api/room/upload/dialog",
        _refuses(422, "file chooser dialog is not open", _may_host),
        "Close the dialog: none is open", errors=(LimitExceeded,), name="upload_dialog_close",
    ),
)  # fmt: skip
