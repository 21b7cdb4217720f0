-- Takes the lock, or a place in the queue.
-- ARGV: 6 ttl, ms  7 life of a waiter, ms  8 ticket or 0  9 record
-- Returns {1, fence}, {0, place, ticket, holder}, or {-1} when the token was ended before.
local TTL, LIFE, TICKET, RECORD = ARGV[6], ARGV[7], tonumber(ARGV[8]), ARGV[9]

local owner = redis.call('GET', LOCK)
if owner == TOKEN then
	if redis.call('HGET', META, 'owner') ~= TOKEN then return {1, grant(TOKEN, RECORD, TTL)} end
	redis.call('PEXPIRE', LOCK, TTL)
	redis.call('PEXPIRE', META, DAY)
	leave_queue(TOKEN)
	return {1, tonumber(redis.call('HGET', META, 'fence'))}
end
if redis.call('EXISTS', ENDED .. TOKEN) == 1 then return {-1} end

if not owner then
	local head = first_alive()
	if not head or head == TOKEN then return {1, grant(TOKEN, RECORD, TTL)} end
	hand_over()
end

local ticket = tonumber(redis.call('ZSCORE', QUEUE, TOKEN) or '')
if not ticket then
	ticket = TICKET
	if ticket == 0 then
		local last = redis.call('ZRANGE', QUEUE, -1, -1, 'WITHSCORES')[2]
		ticket = math.max(NOW, (tonumber(last or '') or 0) + 1)
	end
	redis.call('ZADD', QUEUE, int(ticket), TOKEN)
	redis.call('HSETNX', META, 'key', LOCK)
	redis.call('PEXPIRE', META, DAY)
end
redis.call('PEXPIRE', QUEUE, DAY)
redis.call('SET', WAITER .. TOKEN, RECORD, 'PX', LIFE)
return {0, redis.call('ZRANK', QUEUE, TOKEN) + 1, ticket, holder()}
