"""The room over neko's REST API: settings, control, and the desktop.

There is no desktop behind the gateway. Reads show an empty one, and writes are refused with a
status that neko's own document has for it.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final

from starlette.responses import Response

from gateway.core.errors import LimitExceeded, NotFound
from gateway.dialects.neko import schema
from gateway.dialects.neko.control import Control
from gateway.dialects.neko.members import NekoCaller
from gateway.dialects.neko.render import Refused, control
from gateway.dialects.neko.service import Service
from gateway.dialects.neko.style import Handler, NekoCall, admin_row, row
from gateway.http.endpoint import AnyCall, AnyEndpoint, Nothing, reply

Check = Callable[[Control, NekoCaller], None]
Row = Callable[..., AnyEndpoint]

NO_DIALOG: Final = "file chooser dialog is not open"
ANYBODY: Final[Check] = lambda *_: None  # noqa: E731
UNPROCESSABLE: Final = 422
_FULL: Final = (LimitExceeded,)  # 422 in neko's words
ASKED: Final = schema.ErrorMessage(202, "control request sent")


async def get_settings(service: Service, call: NekoCall[Nothing]) -> Response:
    """Show how the room is run."""
    return reply(service.control.room_of(call.caller).shown)


async def set_settings(service: Service, call: NekoCall[schema.SettingsChange]) -> None:
    """Change how the room is run."""
    await service.control.change_settings(call.caller, call.body)


# --- control


async def control_status(service: Service, call: NekoCall[Nothing]) -> Response:
    """Show who has control."""
    service.control.check_may_host(call.caller)
    return reply(control(service.control.host_id(call.caller)))


async def control_request(service: Service, call: NekoCall[Nothing]) -> Response | None:
    """Take control, or ask the host for it."""
    return None if await service.control.request(call.caller) else reply(ASKED, 202)


def _does(action: Callable[[Control, NekoCaller], Awaitable[None]]) -> Handler:
    """Return a handler that does *action*, with its docstring."""

    @wraps(action)
    async def do(service: Service, call: AnyCall) -> None:
        await action(service.control, call.caller)

    do.__name__ = f"control_{action.__name__}"
    return do


async def control_give(service: Service, call: NekoCall[Nothing]) -> None:
    """Give control to another session."""
    service.control.check_may_host(call.caller)
    await service.control.give(call.caller, await service.session(call.path["id"], call.caller))


# --- the desktop


def _may_watch(_: Control, caller: NekoCaller) -> None:
    if not caller.profile.can_watch:
        raise Refused(403, "session cannot watch")


def _is_host(control: Control, caller: NekoCaller) -> None:
    if not control.is_host(caller):
        raise Refused(403, "session is not host")


def _has_clipboard(control: Control, caller: NekoCaller) -> None:
    _is_host(control, caller)
    if not caller.profile.can_access_clipboard:
        raise Refused(403, "session cannot access clipboard")


def _part(
    path: str, name: str, summary: str, value: object, *,
    check: Check = ANYBODY, make: Row = row,
) -> AnyEndpoint:  # fmt: skip
    """Return the row that shows a part of the desktop, of which there is none."""

    async def show(service: Service, call: AnyCall) -> Response:
        check(service.control, call.caller)
        return reply(value)

    shown = list[type(value[0])] if isinstance(value, list) else type(value)  # type: ignore[misc]
    return make("GET", f"/api/room/{path}", show, shown, summary=summary, name=name)


def _refusal(
    target: str, name: str, summary: str, message: str, *,
    status: int = 403, check: Check = ANYBODY, make: Row = row,
) -> AnyEndpoint:  # fmt: skip
    """Return the row that refuses what needs a desktop."""

    async def refuse(service: Service, call: AnyCall) -> None:
        check(service.control, call.caller)
        raise Refused(status, message)

    method, path = target.split()
    errors = _FULL if status == UNPROCESSABLE or check is Control.check_may_host else ()
    return make(method, f"/api/room/{path}", refuse, summary=summary, name=name, errors=errors)


async def screen_change(_: Service, call: NekoCall[schema.ScreenRequest]) -> Response:
    """Refuse any other screen."""
    wanted, shown = call.body, schema.ScreenConfiguration()
    if (wanted.width, wanted.height, wanted.rate) != (shown.width, shown.height, shown.rate):
        raise Refused(422, "cannot set screen size")
    return reply(shown)


async def broadcast_start(_: Service, call: NekoCall[schema.BroadcastRequest]) -> None:
    """Refuse: there is nothing to broadcast."""
    if not call.body.url:
        raise Refused(400, "missing broadcast URL")
    raise Refused(422, "there is nothing to broadcast")


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    admin_row("GET", "/api/room/settings", get_settings, schema.NekoSettings),
    admin_row("POST", "/api/room/settings", set_settings, None, errors=_FULL),
    row("GET", "/api/room/control", control_status, schema.ControlStatus, errors=_FULL),
    row(
        "POST", "/api/room/control/request", control_request, {202: schema.ErrorMessage, 204: None},
        errors=_FULL,
    ),
    row(
        "POST", "/api/room/control/give/{id}", control_give, None, errors=(NotFound, LimitExceeded),
    ),
    row("POST", "/api/room/control/release", _does(Control.release), None, errors=_FULL),
    admin_row("POST", "/api/room/control/take", _does(Control.take), None, errors=_FULL),
    admin_row("POST", "/api/room/control/reset", _does(Control.reset), None, errors=_FULL),
    admin_row("POST", "/api/room/screen", screen_change, schema.ScreenConfiguration, errors=_FULL),
    admin_row("POST", "/api/room/broadcast/start", broadcast_start, errors=_FULL),
    _part(
        "screen", "screen_configuration", "The screen", schema.ScreenConfiguration(),
        check=_may_watch,
    ),
    _part(
        "screen/configurations", "screen_configurations", "Screens that there may be",
        [schema.ScreenConfiguration()], make=admin_row,
    ),
    _refusal(
        "GET screen/cast.jpg", "screen_cast", "The last picture of a screencast: there is none",
        "screencast pipeline is not enabled", status=400, check=_may_watch,
    ),
    _refusal(
        "GET screen/shot.jpg", "screen_shot", "A picture of the screen: there is none",
        "there is no screen", make=admin_row,
    ),
    _part(
        "broadcast", "broadcast_status", "Whether something is broadcast: no",
        schema.BroadcastStatus(is_active=False), make=admin_row,
    ),
    _refusal(
        "POST broadcast/stop", "broadcast_stop", "Stop: nothing is broadcast",
        "server is not broadcasting", status=422, make=admin_row,
    ),
    _part(
        "clipboard", "clipboard_text", "The clipboard: it is empty", schema.ClipboardText(),
        check=_has_clipboard,
    ),
    _refusal(
        "POST clipboard", "clipboard_set_text", "Fill the clipboard: there is none",
        "there is no clipboard", check=_has_clipboard,
    ),
    _refusal(
        "GET clipboard/image.png", "clipboard_get_image",
        "A picture on the clipboard: there is none", "there is no clipboard", check=_has_clipboard,
    ),
    _part(
        "keyboard/map", "keyboard_map", "The keyboard's layout: there is none",
        schema.KeyboardMap(), check=_is_host,
    ),
    _part(
        "keyboard/modifiers", "keyboard_modifiers", "Which modifier keys are held: none",
        schema.KeyboardModifiers(), check=_is_host,
    ),
    _refusal(
        "POST keyboard/map", "keyboard_map_set", "Change the layout: there is no keyboard",
        "there is no keyboard", check=_is_host,
    ),
    _refusal(
        "POST keyboard/modifiers", "keyboard_modifiers_set",
        "Hold modifier keys: there is no keyboard", "there is no keyboard", check=_is_host,
    ),
    _refusal(
        "POST upload/drop", "upload_drop", "Drop a file: there is nowhere to",
        "unable to upload file", status=400, check=Control.check_may_host,
    ),
    _refusal(
        "POST upload/dialog", "upload_dialog", "Choose a file: no dialog is open", NO_DIALOG,
        status=422, check=Control.check_may_host,
    ),
    _refusal(
        "DELETE upload/dialog", "upload_dialog_close", "Close the dialog: none is open", NO_DIALOG,
        status=422, check=Control.check_may_host,
    ),
)  # fmt: skip
