"""Superset's configuration, all of it from the environment that scripts/stack/superset.py makes."""

import os

SQLALCHEMY_DATABASE_URI = os.environ["SUPERSET_METADATA_URI"]
SECRET_KEY = os.environ["SUPERSET_SECRET_KEY"]
WTF_CSRF_ENABLED = True

# Nothing is loaded from elsewhere, and nothing calls home.
TALISMAN_CONFIG = {
    "content_security_policy": {
        "base-uri": ["'self'"],
        "default-src": ["'self'"],
        "img-src": ["'self'", "blob:", "data:"],
        "worker-src": ["'self'", "blob:"],
        "connect-src": ["'self'"],
        "object-src": "'none'",
        "style-src": ["'self'", "'unsafe-inline'"],
        "script-src": ["'self'", "'strict-dynamic'"],
    },
    "content_security_policy_nonce_in": ["script-src"],
    "force_https": False,  # on 127.0.0.1
    "session_cookie_secure": False,
}
SESSION_COOKIE_SAMESITE = "Lax"
RATELIMIT_ENABLED = False  # one user, one machine

# Filter states and explore forms are kept in the metadata database; charts are asked anew each time.
DATA_CACHE_CONFIG = {"CACHE_TYPE": "NullCache"}
SUPERSET_WEBSERVER_TIMEOUT = 60
ROW_LIMIT = 10_000
