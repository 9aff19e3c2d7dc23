"""The one table of verbs: what can be asked on the admin socket, and which function answers it.

Rule: a verb that is not here does not exist; the types on both sides of a line are checked against each other. What a
verb does lives with its subject (`users.py`, `keys.py` ...), what it asks and answers in `common/protocol.py`.
"""

from __future__ import annotations

from common import protocol
from daemon.admin import audit, cloud, house, jobs, keys, limits, live, models, selftest, upstreams, usage, users, view
from daemon.admin.bound import Bound, many, one, raw

_LINES = (
    one(protocol.STATUS, house.status),
    one(protocol.DOCTOR, house.doctor),
    many(protocol.SELFTEST, selftest.selftest),
    one(protocol.USERS_LIST, users.listed),
    one(protocol.USERS_SHOW, users.shown),
    one(protocol.USERS_ADD, users.add),
    one(protocol.USERS_APPROVE, users.approve),
    one(protocol.USERS_DISCARD, users.discard),
    one(protocol.USERS_DISABLE, users.disable),
    one(protocol.USERS_ENABLE, users.enable),
    one(protocol.USERS_RESET_PASSWORD, users.reset_password),
    one(protocol.USERS_ROLE, users.set_role),
    one(protocol.USERS_NOTES, users.set_notes),
    one(protocol.USERS_INLINE_AUTH, users.set_inline_auth),
    one(protocol.USERS_CLOUD, users.set_cloud),
    one(protocol.USERS_DELETE, users.delete),
    one(protocol.KEYS_ISSUE, keys.issue),
    one(protocol.KEYS_LIST, keys.listed),
    one(protocol.KEYS_ROTATE, keys.rotate),
    one(protocol.KEYS_REVOKE, keys.revoke),
    one(protocol.KEYS_IMPORT, keys.import_tokens),
    one(protocol.LIMITS_SHOW, limits.shown),
    one(protocol.LIMITS_USE, limits.used),
    one(protocol.LIMITS_TRY, limits.tried),
    one(protocol.LIMITS_SET, limits.set_values),
    one(protocol.LIMITS_CLEAR, limits.clear),
    one(protocol.MODELS_LIST, models.listed),
    one(protocol.MODELS_SHOW, models.shown),
    one(protocol.MODELS_ACCESS, models.access),
    many(protocol.MODELS_PULL, models.pull),
    one(protocol.MODELS_DELETE, models.delete),
    one(protocol.UPSTREAMS_LIST, upstreams.listed),
    one(protocol.UPSTREAMS_PROBE, upstreams.probe),
    one(protocol.UPSTREAMS_SEATS, upstreams.set_seats),
    one(protocol.UPSTREAMS_DRAIN, upstreams.drain),
    one(protocol.UPSTREAMS_UNDRAIN, upstreams.undrain),
    one(protocol.UPSTREAMS_ENABLE, cloud.enable),
    one(protocol.UPSTREAMS_DISABLE, cloud.disable),
    one(protocol.UPSTREAMS_KEY, cloud.set_key),
    one(protocol.LIVE, live.listed),
    one(protocol.LIVE_ENDED, live.ended),
    one(protocol.LIVE_SHOW, view.shown),
    many(protocol.LIVE_FOLLOW, view.followed),
    one(protocol.CANCEL, live.cancel),
    one(protocol.USAGE, usage.used),
    many(protocol.AUDIT_SEARCH, audit.searched),
    one(protocol.AUDIT_SHOW, audit.shown),
    one(protocol.AUDIT_POSITION, audit.position),
    one(protocol.AUDIT_ADMIN, audit.administered),
    raw(protocol.AUDIT_EXPORT, audit.export),
    one(protocol.AUDIT_EXPORTED, audit.exported),
    one(protocol.AUDIT_VERIFY, audit.verified),
    one(protocol.JOBS_LIST, jobs.listed),
    one(protocol.JOBS_SHOW, jobs.shown),
    one(protocol.JOBS_CANCEL, jobs.cancel),
    one(protocol.JOBS_EXPORT, jobs.export),
    one(protocol.JOBS_VERIFY, jobs.verify),
    one(protocol.JOBS_RETENTION, jobs.retention),
)

TABLE: dict[str, Bound] = {bound.verb.name: bound for bound in _LINES}
