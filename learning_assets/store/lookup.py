"""The look-up as a function in the database: the same answer as `runtime` gives.

The rule of combination is that of `core.combine`; a test compares them on random scopes.
"""

from __future__ import annotations

from learning_assets.core.combine import BOUNDS

_BLANKS = "".join(f"\\u{k:04x}" for k in range(0x3001) if chr(k).isspace())

# What `core.scope.normalise_value` makes of a value: trimmed text, true and false in lower case, a
# number as short as it can be told; absent for blank text, null, arrays and objects.
_VALUE = r"""
CREATE OR REPLACE FUNCTION scope_value(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE AS $function$
    SELECT CASE jsonb_typeof(value)
        WHEN 'boolean' THEN value #>> '{}'
        WHEN 'number' THEN CASE
            WHEN (value #>> '{}')::numeric = trunc((value #>> '{}')::numeric)
            THEN trunc((value #>> '{}')::numeric)::text
            WHEN abs((value #>> '{}')::numeric) < 1e-300 THEN value #>> '{}'
            ELSE (value #>> '{}')::double precision::text END
        WHEN 'string' THEN (SELECT CASE WHEN lower(trimmed) IN ('true', 'false')
            THEN lower(trimmed) ELSE nullif(trimmed, '') END
            FROM (SELECT btrim(value #>> '{}', {BLANKS}) AS trimmed) AS t)
    END
$function$
""".replace("{BLANKS}", f"E'{_BLANKS}'")

_BOUNDS = ", ".join(f"('{module}', {low}, {high})" for module, (low, high) in BOUNDS.items())

_LOOKUP = f"""
CREATE OR REPLACE FUNCTION lookup(pattern_key text, action_category text, scope jsonb,
    module text DEFAULT 'pm')
RETURNS TABLE (multiplier double precision, status text, set_id bigint,
    published_at timestamptz, expires_at timestamptz, matched jsonb)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $function$
    WITH given AS (
        SELECT coalesce(jsonb_object_agg(pair.key, scope_value(pair.value))
            FILTER (WHERE scope_value(pair.value) IS NOT NULL), '{{}}') AS known
        FROM jsonb_each(CASE WHEN jsonb_typeof(lookup.scope) = 'object'
            THEN lookup.scope ELSE '{{}}' END) AS pair
    ), live AS (
        SELECT s.set_id, s.published_at, s.expires_at, s.expires_at <= now() AS is_stale
        FROM pm_override_sets AS s WHERE s.live_from IS NOT NULL AND s.live_to IS NULL
    ), found AS (
        SELECT count(*) AS n, sum(o.multiplier - 1) AS added, jsonb_agg(jsonb_build_object(
            'lesson_id', o.lesson_id, 'scope_subset', o.scope_subset,
            'multiplier', o.multiplier, 'veto', o.parts #>> '{{veto,reason}}'
            ) ORDER BY o.lesson_id) AS matched
        FROM pm_overrides AS o, given, live
        WHERE NOT live.is_stale AND o.module = lookup.module
        AND o.pattern_key = lookup.pattern_key AND o.action_category = lookup.action_category
        AND given.known @> o.scope_subset
    )
    SELECT CASE WHEN found.n = 0 THEN 1 ELSE
            least(greatest(1 + found.added, bounds.low), bounds.high) END,
        CASE WHEN live.set_id IS NULL THEN 'no_overrides' WHEN live.is_stale THEN 'stale'
            WHEN found.n = 0 THEN 'no_match' ELSE 'ok' END,
        live.set_id, live.published_at, live.expires_at, coalesce(found.matched, '[]')
    FROM found LEFT JOIN live ON true
    LEFT JOIN (VALUES {_BOUNDS}) AS bounds(module, low, high) ON bounds.module = lookup.module
$function$
"""

STATEMENTS = (
    _VALUE,
    "COMMENT ON FUNCTION scope_value(jsonb) IS 'The canonical text of a scope value'",
    _LOOKUP,
    "COMMENT ON FUNCTION lookup(text, text, jsonb, text) IS "
    "'What to multiply the size of an action by, from the live set of overrides'",
)
