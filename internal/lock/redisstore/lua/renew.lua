-- Extends the token's lease; takes the lock back when it is gone, untaken and was not ended.
-- ARGV: 6 ttl, ms  7 record
-- Returns {1, fence} renewed, {2, fence} reasserted, {0, holder, how it was ended}.
local owner = redis.call('GET', LOCK)
if owner == TOKEN then
	if redis.call('HGET', META, 'owner') ~= TOKEN then return {1, grant(TOKEN, ARGV[7], ARGV[6])} end
	redis.call('PEXPIRE', LOCK, ARGV[6])
	redis.call('PEXPIRE', META, DAY)
	return {1, tonumber(redis.call('HGET', META, 'fence'))}
end
local ended = redis.call('GET', ENDED .. TOKEN)
if owner or ended then return {0, holder(), ended or ''} end
return {2, grant(TOKEN, ARGV[7], ARGV[6])}
