-- pending -> indexing: leaves the queue, counts the attempt. Of two masters or loops exactly one gets it.
-- KEYS 1 epoch  2 task:<id>  3 queue  4 indexing  5 tasks  6 facts
-- ARGV 1 epoch  2 task id  3 origin of the indexer
-- Whether the task's pause is over is decided by who chose it (task_queue.lua), not here.
-- Reply: {'ok', attempt} | {'refused', reason}
local refused = refusal(KEYS[1], ARGV[1], KEYS[2], 'pending', nil)
if refused then
  -- An id without a record would be offered for ever.
  if refused == 'unknown_task' then redis.call('ZREM', KEYS[3], ARGV[2]) end
  return { 'refused', refused }
end
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('SADD', KEYS[4], ARGV[2])
redis.call('HSET', KEYS[2], 'status', 'indexing', 'indexer', ARGV[3], 'start_us', digits(now_us()))
redis.call('HDEL', KEYS[2], 'progress', 'not_before_us', 'pending_us')
note_facts(KEYS[5], KEYS[6], KEYS[2], ARGV[2])
return { 'ok', digits(redis.call('HINCRBY', KEYS[2], 'attempt', 1)) }
