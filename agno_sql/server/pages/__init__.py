"""Pages for browsers. All that they load is served from here; nothing comes from another host."""
