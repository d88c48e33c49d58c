"""Windows of the buffer: what is trained on, kept when signal expires, and held out; `ondevice.windows` cuts them."""
