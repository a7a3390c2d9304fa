// The custom element comes with its own change.
