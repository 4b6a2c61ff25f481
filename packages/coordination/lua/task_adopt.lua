-- Recreates the record of a build that an indexer reports and Redis lost (I9).
-- KEYS 1 epoch  2 task:<id>  3 tasks  4 indexing  5 label_task:<label>  6 removed:<id>  7 tasks_of:<label>
--      8 facts
-- ARGV 1 epoch  2 task id  3 label  4 mode  5 attempt  6 indexer  7 start in microseconds  8 prefix of task keys
-- Refused where the record exists or the label has another open task (wrong_status), and where the task was removed
-- on purpose while it was open (unknown_task): its build is to be stopped, not kept.
-- Reply: {'ok'} | {'refused', reason}
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return { 'refused', 'stale_epoch' } end
if redis.call('EXISTS', KEYS[6]) == 1 then return { 'refused', 'unknown_task' } end
if redis.call('EXISTS', KEYS[2]) == 1 then return { 'refused', 'wrong_status' } end
if open_task_of(KEYS[5], ARGV[8]) then return { 'refused', 'wrong_status' } end

-- An indexer's clock ahead of ours must not order the task last, nor let it end before it started.
local start = math.min(tonumber(ARGV[7]), now_us())
-- When it was created is lost; it was not after it started.
local order = start
-- Listing pages by score, so two ids never share one.
while redis.call('ZCOUNT', KEYS[3], digits(order), digits(order)) > 0 do order = order - 1 end
redis.call('HSET', KEYS[2], 'task_id', ARGV[2], 'list_id', ARGV[3], 'status', 'indexing', 'mode', ARGV[4],
  'trigger', 'plan', 'priority', 'default', 'attempt', ARGV[5], 'indexer', ARGV[6], 'start_us', digits(start),
  'create_us', digits(order), 'order', digits(order))
redis.call('ZADD', KEYS[3], digits(order), ARGV[2])
redis.call('ZADD', KEYS[7], digits(order), ARGV[2])
note_facts(KEYS[3], KEYS[8], KEYS[2], ARGV[2])
redis.call('SADD', KEYS[4], ARGV[2])
redis.call('SET', KEYS[5], ARGV[2])
return { 'ok' }
