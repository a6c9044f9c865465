"""The conversation: a pure core and the engine thread that owns the device."""
