"""What is in the place of the module ssl in the plugin's root file system: there is no TLS.

The plugin has no network, so OpenSSL would be there for nothing but to be kept up to date. But
prometheus_client, of which mdvp needs the text format alone, imports ssl for what it can do as a
client and a server, and asyncio names its errors.
"""

PROTOCOL_TLS_CLIENT = PROTOCOL_TLS_SERVER = 0


class SSLContext:
    """Here for annotations."""


class TLSVersion:
    """Here for annotations."""


class SSLError(OSError):
    """Never raised."""


SSLWantReadError = SSLSyscallError = SSLError
