-- Extends the holder's lease; takes the lock back when it is gone, untaken and was not ended.
-- ARGV: 6 ttl, ms  7 record  8 token of our share, the holder's own unless we joined it
-- Returns {1, fence} renewed, {2, fence} reasserted, {0, holder, how it was ended}.
local TTL, RECORD, SHARE = ARGV[6], ARGV[7], ARGV[8]
local owner = redis.call('GET', LOCK)
local ended = redis.call('GET', ENDED .. SHARE)
if ended or (owner and owner ~= TOKEN) then return {0, holder(), ended or ''} end
local status = owner and 1 or 2
if not owner or redis.call('HGET', META, 'owner') ~= TOKEN then
	grant(TOKEN, RECORD, TTL)
	if SHARE ~= TOKEN then redis.call('HDEL', META, 's:' .. TOKEN) end -- its holder speaks for itself
end
redis.call('HSET', META, 's:' .. SHARE, '1')
redis.call('PEXPIRE', LOCK, TTL)
redis.call('PEXPIRE', META, DAY)
return {status, tonumber(redis.call('HGET', META, 'fence'))}
