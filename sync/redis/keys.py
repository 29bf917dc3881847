"""The keys of the service's own. No path begins with a slash, so no file has such a name.

All come after SYNC_PREFIX. Names in them are paths, as in the manifest.
"""

# What Redis holds of the directory: see `target`.
OWN = b"/mdvp-sync/"  # what all of them begin with
MANIFEST = b"/mdvp-sync/manifest"
NAMES = b"/mdvp-sync/names"
EPOCH = b"/mdvp-sync/epoch"
PROBE = b"/mdvp-sync/probe"
UPLOAD = b"/mdvp-sync/upload"  # a large value that has come, and takes effect next
UPLOADS = b"/mdvp-sync/upload/"  # and, with what nobody else has behind it, that of a repair
LEASE = b"/mdvp-sync/lease"  # which service mirrors; it expires when that does not renew it
FEED = b"/mdvp-sync/feed"  # hash: what the stream of changes goes on from
WAITS = (
    b"/mdvp-sync/waits/"  # and, with a token behind it: a list that tells who waits that it is so
)

# What the modes other than one-way-replica need:
CONFLICTS = b"/mdvp-sync/conflicts"  # hash: name -> what differs, as JSON (`notes.Conflict`)
REQUESTS = b"/mdvp-sync/requests"  # hash: name -> b"disk" or b"redis", until it is done
ACCEPT = b"/"  # the field of REQUESTS that is about all names
LOST = b"/mdvp-sync/lost"  # hash: number -> when, how large and which name, of each value kept
LOST_VALUE = b"/mdvp-sync/lost/"  # and, with the number behind it, the value
STATE = b"/mdvp-sync/state"  # hash: which directory and which server it was the last time
MADE = b"/mdvp-sync/made"  # hash: place -> which directory the service has made there
