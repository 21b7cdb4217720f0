-- Extends the holder's lease; takes the lock back when it is gone, untaken and was not ended.
-- ARGV: 7 ttl, ms  8 record  9 token of our share, the holder's own unless we joined it
-- Returns {1, fence} renewed, {2, fence} reasserted, {0, holder, how it was ended}.
local TTL, RECORD, SHARE = ARGV[7], ARGV[8], ARGV[9]
local owner = redis.call('GET', LOCK)
local ended = redis.call('GET', ENDED .. SHARE)
if not ended and redis.call('HEXISTS', META, 'restored') == 1 then owner = TOKEN end -- a waiter's guess, and ours to correct
if not ended and owner and owner ~= TOKEN then event('lost', RECORD) end
if ended or (owner and owner ~= TOKEN) then return {0, holder(), ended or ''} end
-- First a command that a full server allows: after it, it allows the others too.
redis.call('PEXPIRE', LOCK, TTL)
local status = 1
if not owner or redis.call('HGET', META, 'owner') ~= TOKEN then
	status = 2 -- also when a waiter put the lock back for us
	local fence = grant(TOKEN, RECORD, TTL)
	event('reasserted', RECORD, 'fence', int(fence))
	if SHARE ~= TOKEN then redis.call('HDEL', META, 's:' .. TOKEN) end -- its holder speaks for itself
end
redis.call('HSET', META, 's:' .. SHARE, '1')
redis.call('PEXPIRE', META, DAY)
return {status, tonumber(redis.call('HGET', META, 'fence'))}
