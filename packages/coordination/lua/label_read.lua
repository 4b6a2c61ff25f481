-- What is served now, by Redis' own clock.
-- KEYS[1] sorted set of label|matcher_id by expiry in ms
-- ARGV[1] most members to return
-- Reply: {now in ms, {member, expiry, ...}}, longest to live first.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = redis.call('ZRANGE', KEYS[1], '+inf', '(' .. now, 'BYSCORE', 'REV', 'LIMIT', 0, ARGV[1], 'WITHSCORES')
return {tostring(now), live}
