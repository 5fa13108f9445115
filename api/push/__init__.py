"""Live push over SSE and WebSocket (`spec: api`, section 13): what is new is read and encoded once per worker for all clients."""
