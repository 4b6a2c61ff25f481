-- Notes when the last plan was made, unless its maker was replaced (I4).
-- KEYS 1 epoch  2 last_plan
-- ARGV 1 epoch  2 milliseconds
-- Reply: {'ok'} | {'refused', reason}
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return { 'refused', 'stale_epoch' } end
redis.call('SET', KEYS[2], ARGV[2])
return { 'ok' }
