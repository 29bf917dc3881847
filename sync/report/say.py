"""Says something in the log's JSON: for the entrypoints of the images, which are shell scripts.

python3 -m sync.report.say WARNING "what there is to say"
"""

import logging
import sys

from sync.report.log import to_stderr

if __name__ == "__main__":
    level, words = sys.argv[1:]
    to_stderr()
    logging.getLogger("entrypoint").log(
        logging.getLevelNamesMapping()[level],
        "%(_words)s",
        {"event": "entrypoint", "_words": words},
    )
