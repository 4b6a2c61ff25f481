-- Ended tasks past their retention, those that ended first before others. Read-only.
-- KEYS 1 ended  2 tasks  3 queue  4 indexing  5 facts
-- ARGV 1 how many of those that ended last are kept  2 what ended before is not, in microseconds  3 most ids
-- Reply: {all that ended, how many of them are past their retention, ids, tasks that the sets of statuses or
--         the facts miss (below 0 where they hold too many)}
local ended = redis.call('ZCARD', KEYS[1])
-- Both rules take from the same end of the set, so the larger number holds both.
local expired = math.max(ended - tonumber(ARGV[1]), redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[2]))
local ids = {}
if expired > 0 then
  ids = redis.call('ZRANGE', KEYS[1], 0, math.min(expired, tonumber(ARGV[3])) - 1)
end
local all = redis.call('ZCARD', KEYS[2])
local unlisted = all - redis.call('ZCARD', KEYS[3]) - redis.call('SCARD', KEYS[4]) - ended
if unlisted == 0 then unlisted = all - redis.call('ZCARD', KEYS[5]) end
return { ended, math.max(expired, 0), ids, unlisted }
