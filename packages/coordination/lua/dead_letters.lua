-- Counts dead letters, or removes the old ones, by Redis' own clock. The stream is bounded where it is written.
-- KEYS 1 lim:dead_letters
-- ARGV 1 age in ms from which one is old  2 'count' or 'trim'
-- Reply: {all before, old ones}; 'trim' has removed these
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- Not 0-0: below that Redis knows no id.
local oldest_kept = string.format('%.0f-0', math.max(now - tonumber(ARGV[1]), 1))
local all = redis.call('XLEN', KEYS[1])
if ARGV[2] == 'trim' then return { all, redis.call('XTRIM', KEYS[1], 'MINID', '=', oldest_kept) } end
return { all, #redis.call('XRANGE', KEYS[1], '-', '(' .. oldest_kept) }
