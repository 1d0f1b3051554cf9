"""The room over neko's REST API: settings, control, and what only moves pixels.

There is no desktop behind the gateway. What reads one shows an empty one, and what would change one
is refused with a status that neko's own document has for it.
"""

from typing import Final

from starlette.responses import Response

from gateway.core.errors import BadRequest, LimitExceeded, NotFound
from gateway.dialects.neko.control import SettingsChange
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


async def control_release(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Give control up."""
    await service_of(call.context).control.release(call.caller)
    return Response(status_code=204)


async def control_take(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Take control, whoever has it."""
    await service_of(call.context).control.take(call.caller)
    return Response(status_code=204)


async def control_give(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Give control to another session."""
    service_of(call.context).control.check_may_host(call.caller)
    target = await service_of(call.context).session(call.path["id"], call.caller)
    await service_of(call.context).control.give(call.caller, target)
    return Response(status_code=204)


async def control_reset(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Take control from whoever has it."""
    await service_of(call.context).control.reset(call.caller)
    return Response(status_code=204)


# --- pixels


def _check_may_watch(call: AnyCall) -> None:
    if not call.caller.profile.can_watch:
        raise Refused(403, "session cannot watch")


def _check_is_host(call: AnyCall, *, clipboard: bool = False) -> None:
    caller = call.caller
    host = service_of(call.context).control.room_of(caller).host
    if caller.session is None or host != caller.session.id:
        raise Refused(403, "session is not host")
    if clipboard and not caller.profile.can_access_clipboard:
        raise Refused(403, "session cannot access clipboard")


async def screen(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Show the screen that there is not."""
    _check_may_watch(call)
    return reply(ScreenConfiguration())


async def screen_change(call: Call[NekoCaller, Nothing, ScreenRequest]) -> Response:
    """Refuse any other screen."""
    wanted = call.body
    shown = ScreenConfiguration()
    if (wanted.width, wanted.height, wanted.rate) != (shown.width, shown.height, shown.rate):
        raise Refused(422, "cannot set screen size")
    return reply(shown)


async def screens(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Show the one screen that there is not."""
    del call
    return reply([ScreenConfiguration()])


async def screen_cast(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Refuse: nothing is cast."""
    _check_may_watch(call)
    raise Refused(400, "screencast pipeline is not enabled")


async def no_picture(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Refuse: there is nothing to take a picture of."""
    del call
    raise Refused(403, "there is no screen")


async def broadcast_status(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Say that nothing is broadcast."""
    del call
    return reply(BroadcastStatus(is_active=False))


async def broadcast_start(call: Call[NekoCaller, Nothing, BroadcastRequest]) -> Response:
    """Refuse: there is nothing to broadcast."""
    if not call.body.url:
        raise Refused(400, "missing broadcast URL")
    raise Refused(422, "there is nothing to broadcast")


async def broadcast_stop(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Refuse: nothing is broadcast."""
    del call
    raise Refused(422, "server is not broadcasting")


async def clipboard_text(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Show the host an empty clipboard."""
    _check_is_host(call, clipboard=True)
    return reply(ClipboardText())


async def no_clipboard(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Refuse: there is no clipboard."""
    _check_is_host(call, clipboard=True)
    raise Refused(403, "there is no clipboard")


async def keyboard_map(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Show the host the keyboard that there is not."""
    _check_is_host(call)
    return reply(KeyboardMap())


async def keyboard_modifiers(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Show the host that no key is held."""
    _check_is_host(call)
    return reply(KeyboardModifiers())


async def no_keyboard(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Refuse: there is no keyboard."""
    _check_is_host(call)
    raise Refused(403, "there is no keyboard")


async def no_drop(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Refuse: there is nowhere to drop a file."""
    service_of(call.context).control.check_may_host(call.caller)
    raise Refused(400, "unable to upload file")


async def no_dialog(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Refuse: no dialog is open."""
    service_of(call.context).control.check_may_host(call.caller)
    raise Refused(422, "file chooser dialog is not open")


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
        "POST", "/api/room/control/release", control_release, "Give control up", returns=_FREE,
        errors=(LimitExceeded,),
    ),
    row(
        "POST", "/api/room/control/take", control_take, "Take control, whoever has it", extra=ADMIN,
        returns=_FREE, errors=(LimitExceeded,),
    ),
    row(
        "POST", "/api/room/control/give/{id}", control_give, "Give control to another session",
        returns=_FREE, errors=(BadRequest, NotFound, LimitExceeded),
    ),
    row(
        "POST", "/api/room/control/reset", control_reset, "Take control from whoever has it",
        extra=ADMIN, returns=_FREE, errors=(LimitExceeded,),
    ),
    row("GET", "/api/room/screen", screen, "The screen", returns={200: ScreenConfiguration}),
    row(
        "POST", "/api/room/screen", screen_change, "Change the screen", extra=ADMIN,
        body=ScreenRequest, returns={200: ScreenConfiguration}, errors=(BadRequest, LimitExceeded),
    ),
    row(
        "GET", "/api/room/screen/configurations", screens, "Screens that there may be", extra=ADMIN,
        returns={200: list[ScreenConfiguration]},
    ),
    row(
        "GET", "/api/room/screen/cast.jpg", screen_cast,
        "The last picture of a screencast: there is none", errors=(BadRequest,),
    ),
    row(
        "GET", "/api/room/screen/shot.jpg", no_picture, "A picture of the screen: there is none",
        extra=ADMIN,
    ),
    row(
        "GET", "/api/room/broadcast", broadcast_status, "Whether something is broadcast: no",
        extra=ADMIN, returns={200: BroadcastStatus},
    ),
    row(
        "POST", "/api/room/broadcast/start", broadcast_start, "Broadcast: there is nothing to",
        extra=ADMIN, body=BroadcastRequest, errors=(BadRequest, LimitExceeded),
    ),
    row(
        "POST", "/api/room/broadcast/stop", broadcast_stop, "Stop: nothing is broadcast",
        extra=ADMIN, errors=(LimitExceeded,),
    ),
    row(
        "GET", "/api/room/clipboard", clipboard_text, "The clipboard: it is empty",
        returns={200: ClipboardText},
    ),
    row(
        "POST", "/api/room/clipboard", no_clipboard, "Fill the clipboard: there is none",
        name="clipboard_set_text",
    ),
    row(
        "GET", "/api/room/clipboard/image.png", no_clipboard,
        "A picture on the clipboard: there is none", name="clipboard_get_image",
    ),
    row(
        "GET", "/api/room/keyboard/map", keyboard_map, "The keyboard's layout: there is none",
        returns={200: KeyboardMap},
    ),
    row(
        "POST", "/api/room/keyboard/map", no_keyboard, "Change the layout: there is no keyboard",
        name="keyboard_map_set",
    ),
    row(
        "GET", "/api/room/keyboard/modifiers", keyboard_modifiers,
        "Which modifier keys are held: none", returns={200: KeyboardModifiers},
    ),
    row(
        "POST", "/api/room/keyboard/modifiers", no_keyboard,
        "Hold modifier keys: there is no keyboard", name="keyboard_modifiers_set",
    ),
    row(
        "POST", "/api/room/upload/drop", no_drop, "Drop a file: there is nowhere to",
        errors=(BadRequest, LimitExceeded),
    ),
    row(
        "POST", "/api/room/upload/dialog", no_dialog, "Choose a file: no dialog is open",
        errors=(LimitExceeded,), name="upload_dialog",
    ),
    row(
        "DELETE", "/api/room/upload/dialog", no_dialog, "Close the dialog: none is open",
        errors=(LimitExceeded,), name="upload_dialog_close",
    ),
)  # fmt: skip
