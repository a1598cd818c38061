"""The engine of this machine behind the HTTP API of Tinker and MinT, for their official SDKs."""
