"""``gateway audit``: probes that watch a running gateway, and the checker of its promises."""
