-- Makes a holder's lock the token's as well ("join"), or instead ("takeover", which nobody may
-- share).
-- ARGV: 6 ttl, ms  7 the holder's token  8 join or takeover  9 record
-- Returns {1, fence}, or {0} when that holder does not have it any more.
local TTL, HOLDER, MODE = ARGV[6], ARGV[7], ARGV[8]
if redis.call('GET', LOCK) ~= HOLDER or redis.call('HGET', META, 'owner') ~= HOLDER then return {0} end
if MODE == 'takeover' then
	if shares() > redis.call('HEXISTS', META, 's:' .. HOLDER) then return {0} end
	redis.call('SET', ENDED .. HOLDER, 'taken over', 'PX', DAY)
	return {1, grant(TOKEN, ARGV[9], TTL)}
end
leave_queue(TOKEN)
redis.call('HSET', META, 's:' .. TOKEN, '1')
redis.call('PEXPIRE', LOCK, TTL)
redis.call('PEXPIRE', META, DAY)
return {1, tonumber(redis.call('HGET', META, 'fence'))}
