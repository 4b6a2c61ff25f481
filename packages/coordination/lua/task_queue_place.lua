-- Put after task_guard.lua, before what enters the queue. The queue is one sorted set; each priority has a band of
-- scores of its own, so first in, first out within a priority needs no clock: a new task goes one above the highest
-- score of its band, one that comes back goes one below the lowest. An empty band begins in its middle. All scores are
-- whole numbers below 2^53, which a double holds exactly.

local bands = { maximum = 0, highest = 1, higher = 2, high = 3, default = 4, low = 5, lower = 6, lowest = 7 }
local band_width = 2 ^ 50

local function edges_of(priority)
  -- Records of before there were priorities have none.
  local low = (bands[priority or 'default'] or bands.default) * band_width
  return digits(low), '(' .. digits(low + band_width), low + band_width / 2
end

local function place_at_end(queue, priority)
  local low, high, middle = edges_of(priority)
  local last = redis.call('ZRANGE', queue, high, low, 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
  return last[2] and digits(tonumber(last[2]) + 1) or digits(middle)
end

local function place_at_front(queue, priority)
  local low, high, middle = edges_of(priority)
  local first = redis.call('ZRANGE', queue, low, high, 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  return first[2] and digits(tonumber(first[2]) - 1) or digits(middle)
end
