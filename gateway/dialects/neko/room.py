"""The room over neko's REST API: settings, control, and what only moves pixels.

There is no desktop behind the gateway. What reads one shows an empty one, and what would change one
is refused with a status that neko's own document has for it.
"""

from typing import Final

from gateway.dialects.neko.bodies import BroadcastRequest, ScreenRequest
from gateway.dialects.neko.control import SettingsChange
from gateway.dialects.neko.errors import Refused
from gateway.dialects.neko.operation import Answer, Call, Operation
from gateway.dialects.neko.shapes import (
    BroadcastStatus,
    ClipboardText,
    ControlStatus,
    ErrorMessage,
    KeyboardMap,
    KeyboardModifiers,
    ScreenConfiguration,
    Settings,
    control,
)

ASKED: Final = ErrorMessage(202, "control request sent")


async def get_settings(call: Call) -> Answer:
    """Show how the room is run."""
    return Answer(200, call.service.control.room_of(call.caller).shown)


async def set_settings(call: Call) -> Answer:
    """Change how the room is run."""
    await call.service.control.change_settings(call.caller, await call.read(SettingsChange))
    return Answer(204)


# --- control


async def control_status(call: Call) -> Answer:
    """Show who has control."""
    call.service.control.check_may_host(call.caller)
    return Answer(200, control(call.service.control.host_id(call.caller)))


async def control_request(call: Call) -> Answer:
    """Take control, or ask the host for it."""
    has_control = await call.service.control.request(call.caller)
    return Answer(204) if has_control else Answer(202, ASKED)


async def control_release(call: Call) -> Answer:
    """Give control up."""
    await call.service.control.release(call.caller)
    return Answer(204)


async def control_take(call: Call) -> Answer:
    """Take control, whoever has it."""
    await call.service.control.take(call.caller)
    return Answer(204)


async def control_give(call: Call) -> Answer:
    """Give control to another session."""
    call.service.control.check_may_host(call.caller)
    target = await call.service.session(call.id, call.caller)
    await call.service.control.give(call.caller, target)
    return Answer(204)


async def control_reset(call: Call) -> Answer:
    """Take control from whoever has it."""
    await call.service.control.reset(call.caller)
    return Answer(204)


# --- pixels


def _check_may_watch(call: Call) -> None:
    if not call.caller.profile.can_watch:
        raise Refused(403, "session cannot watch")


def _check_is_host(call: Call, *, clipboard: bool = False) -> None:
    caller = call.caller
    host = call.service.control.room_of(caller).host
    if caller.session is None or host != caller.session.id:
        raise Refused(403, "session is not host")
    if clipboard and not caller.profile.can_access_clipboard:
        raise Refused(403, "session cannot access clipboard")


async def screen(call: Call) -> Answer:
    """Show the screen that there is not."""
    _check_may_watch(call)
    return Answer(200, ScreenConfiguration())


async def screen_change(call: Call) -> Answer:
    """Refuse any other screen."""
    wanted = await call.read(ScreenRequest)
    shown = ScreenConfiguration()
    if (wanted.width, wanted.height, wanted.rate) != (shown.width, shown.height, shown.rate):
        raise Refused(422, "cannot set screen size")
    return Answer(200, shown)


async def screens(call: Call) -> Answer:
    """Show the one screen that there is not."""
    del call
    return Answer(200, [ScreenConfiguration()])


async def screen_cast(call: Call) -> Answer:
    """Refuse: nothing is cast."""
    _check_may_watch(call)
    raise Refused(400, "screencast pipeline is not enabled")


async def no_picture(call: Call) -> Answer:
    """Refuse: there is nothing to take a picture of."""
    del call
    raise Refused(403, "there is no screen")


async def broadcast_status(call: Call) -> Answer:
    """Say that nothing is broadcast."""
    del call
    return Answer(200, BroadcastStatus(is_active=False))


async def broadcast_start(call: Call) -> Answer:
    """Refuse: there is nothing to broadcast."""
    if not (await call.read(BroadcastRequest)).url:
        raise Refused(400, "missing broadcast URL")
    raise Refused(422, "there is nothing to broadcast")


async def broadcast_stop(call: Call) -> Answer:
    """Refuse: nothing is broadcast."""
    del call
    raise Refused(422, "server is not broadcasting")


async def clipboard_text(call: Call) -> Answer:
    """Show the host an empty clipboard."""
    _check_is_host(call, clipboard=True)
    return Answer(200, ClipboardText())


async def no_clipboard(call: Call) -> Answer:
    """Refuse: there is no clipboard."""
    _check_is_host(call, clipboard=True)
    raise Refused(403, "there is no clipboard")


async def keyboard_map(call: Call) -> Answer:
    """Show the host the keyboard that there is not."""
    _check_is_host(call)
    return Answer(200, KeyboardMap())


async def keyboard_modifiers(call: Call) -> Answer:
    """Show the host that no key is held."""
    _check_is_host(call)
    return Answer(200, KeyboardModifiers())


async def no_keyboard(call: Call) -> Answer:
    """Refuse: there is no keyboard."""
    _check_is_host(call)
    raise Refused(403, "there is no keyboard")


async def no_drop(call: Call) -> Answer:
    """Refuse: there is nowhere to drop a file."""
    call.service.control.check_may_host(call.caller)
    raise Refused(400, "unable to upload file")


async def no_dialog(call: Call) -> Answer:
    """Refuse: no dialog is open."""
    call.service.control.check_may_host(call.caller)
    raise Refused(422, "file chooser dialog is not open")


_FREE: Final = {204: None}

OPERATIONS: Final = (
    Operation(
        method="GET", path="/api/room/settings", name="settingsGet", handler=get_settings,
        who="admin", summary="How the room is run", returns={200: Settings},
    ),
    Operation(
        method="POST", path="/api/room/settings", name="settingsSet", handler=set_settings,
        who="admin", summary="Change how the room is run", body=SettingsChange, returns=_FREE,
        errors=(400, 422),
    ),
    Operation(
        method="GET", path="/api/room/control", name="controlStatus", handler=control_status,
        summary="Who has control", returns={200: ControlStatus}, errors=(422,),
    ),
    Operation(
        method="POST", path="/api/room/control/request", name="controlRequest",
        handler=control_request, summary="Take control, or ask the host for it",
        returns={202: ErrorMessage, **_FREE}, errors=(422,),
    ),
    Operation(
        method="POST", path="/api/room/control/release", name="controlRelease",
        handler=control_release, summary="Give control up", returns=_FREE, errors=(422,),
    ),
    Operation(
        method="POST", path="/api/room/control/take", name="controlTake", handler=control_take,
        who="admin", summary="Take control, whoever has it", returns=_FREE, errors=(422,),
    ),
    Operation(
        method="POST", path="/api/room/control/give/{id}", name="controlGive",
        handler=control_give, summary="Give control to another session", returns=_FREE,
        errors=(400, 404, 422),
    ),
    Operation(
        method="POST", path="/api/room/control/reset", name="controlReset",
        handler=control_reset, who="admin", summary="Take control from whoever has it",
        returns=_FREE, errors=(422,),
    ),
    Operation(
        method="GET", path="/api/room/screen", name="screenConfiguration", handler=screen,
        summary="The screen", returns={200: ScreenConfiguration},
    ),
    Operation(
        method="POST", path="/api/room/screen", name="screenConfigurationChange",
        handler=screen_change, who="admin", summary="Change the screen", body=ScreenRequest,
        returns={200: ScreenConfiguration}, errors=(400, 422),
    ),
    Operation(
        method="GET", path="/api/room/screen/configurations", name="screenConfigurationsList",
        handler=screens, who="admin", summary="Screens that there may be",
        returns={200: list[ScreenConfiguration]},
    ),
    Operation(
        method="GET", path="/api/room/screen/cast.jpg", name="screenCastImage",
        handler=screen_cast, summary="The last picture of a screencast: there is none",
        returns={}, errors=(400,),
    ),
    Operation(
        method="GET", path="/api/room/screen/shot.jpg", name="screenShotImage",
        handler=no_picture, who="admin", summary="A picture of the screen: there is none",
        returns={},
    ),
    Operation(
        method="GET", path="/api/room/broadcast", name="broadcastStatus",
        handler=broadcast_status, who="admin", summary="Whether something is broadcast: no",
        returns={200: BroadcastStatus},
    ),
    Operation(
        method="POST", path="/api/room/broadcast/start", name="broadcastStart",
        handler=broadcast_start, who="admin", summary="Broadcast: there is nothing to",
        body=BroadcastRequest, returns={}, errors=(400, 422),
    ),
    Operation(
        method="POST", path="/api/room/broadcast/stop", name="broadcastStop",
        handler=broadcast_stop, who="admin", summary="Stop: nothing is broadcast", returns={},
        errors=(422,),
    ),
    Operation(
        method="GET", path="/api/room/clipboard", name="clipboardGetText",
        handler=clipboard_text, summary="The clipboard: it is empty",
        returns={200: ClipboardText},
    ),
    Operation(
        method="POST", path="/api/room/clipboard", name="clipboardSetText",
        handler=no_clipboard, summary="Fill the clipboard: there is none", returns={},
    ),
    Operation(
        method="GET", path="/api/room/clipboard/image.png", name="clipboardGetImage",
        handler=no_clipboard, summary="A picture on the clipboard: there is none", returns={},
    ),
    Operation(
        method="GET", path="/api/room/keyboard/map", name="keyboardMapGet",
        handler=keyboard_map, summary="The keyboard's layout: there is none",
        returns={200: KeyboardMap},
    ),
    Operation(
        method="POST", path="/api/room/keyboard/map", name="keyboardMapSet",
        handler=no_keyboard, summary="Change the layout: there is no keyboard", returns={},
    ),
    Operation(
        method="GET", path="/api/room/keyboard/modifiers", name="keyboardModifiersGet",
        handler=keyboard_modifiers, summary="Which modifier keys are held: none",
        returns={200: KeyboardModifiers},
    ),
    Operation(
        method="POST", path="/api/room/keyboard/modifiers", name="keyboardModifiersSet",
        handler=no_keyboard, summary="Hold modifier keys: there is no keyboard", returns={},
    ),
    Operation(
        method="POST", path="/api/room/upload/drop", name="uploadDrop", handler=no_drop,
        summary="Drop a file: there is nowhere to", returns={}, errors=(400, 422),
    ),
    Operation(
        method="POST", path="/api/room/upload/dialog", name="uploadDialog", handler=no_dialog,
        summary="Choose a file: no dialog is open", returns={}, errors=(422,),
    ),
    Operation(
        method="DELETE", path="/api/room/upload/dialog", name="uploadDialogClose",
        handler=no_dialog, summary="Close the dialog: none is open", returns={}, errors=(422,),
    ),
)  # fmt: skip
