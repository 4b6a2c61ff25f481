-- One stretch of the queue, in dispatch order. Read-only.
-- KEYS 1 queue
-- ARGV 1 prefix of task keys  2 lowest score, '(…' or '-inf'  3 most records looked at  4 most tasks found
--      5 '1' to leave out those that wait for another attempt (by Redis' clock), '0' to take them along
-- Reads the records (ARGV 1 .. id, same slot by its tag).
-- Reply: {length of the whole queue; Redis' clock in microseconds; score that it came to, '' at the queue's end;
--         records looked at; of these waiting; ids without a record; tasks found, packed}, each of these
--         {field, value, …, 'queue_score', score}
local budget, most = tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_us()
local function score_of(id) return digits(tonumber(redis.call('ZSCORE', KEYS[1], id))) end
local page = redis.call('ZRANGE', KEYS[1], ARGV[2], '+inf', 'BYSCORE', 'LIMIT', 0, budget)
local reached = #page == budget and score_of(page[budget]) or ''
local waiting, seen, vanished, found = 0, 0, {}, {}
for _, id in ipairs(page) do
  local task_key = ARGV[1] .. id
  local waits = (tonumber(redis.call('HGET', task_key, 'not_before_us') or '') or 0) > now
  seen = seen + 1
  if waits then waiting = waiting + 1 end
  if not (waits and ARGV[5] == '1') then
    local fields = redis.call('HGETALL', task_key)
    if #fields == 0 then
      vanished[#vanished + 1] = id
    else
      local score = score_of(id)
      fields[#fields + 1] = 'queue_score'
      fields[#fields + 1] = score
      found[#found + 1] = fields
      if #found == most then
        reached = score
        break
      end
    end
  end
end
return { redis.call('ZCARD', KEYS[1]), digits(now), reached, seen, waiting, vanished, packed(found) }
