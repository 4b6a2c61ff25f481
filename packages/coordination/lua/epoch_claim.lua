-- Gives the holder of the master lock the next fencing epoch: above the stored one, and not below Redis' clock, so that
-- a lost counter cannot bring an old epoch back. Only the holder claims: who slept since it got the lock, and lost it,
-- must not outrank the master that came after.
-- KEYS 1 master lock  2 epoch
-- ARGV 1 value that the claimant wrote into the lock
-- Reply: epoch in decimal digits, '' where the lock is not the claimant's
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return '' end
local t = redis.call('TIME')
local epoch = tonumber(t[1]) * 1000000 + tonumber(t[2])
local stored = tonumber(redis.call('GET', KEYS[2]) or '0') or 0
if stored >= epoch then epoch = stored + 1 end
-- Lua prints large numbers as 1.7e+15.
local text = string.format('%.0f', epoch)
redis.call('SET', KEYS[2], text)
return text
