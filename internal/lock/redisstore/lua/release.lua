-- Ends what the token has: the lock, which passes to the next in line, its share of one, or a
-- place in the queue.
-- ARGV: 6 how it ended  7 for how long that is remembered, ms
-- Returns 0 not held, 1 freed, 2 handed over, 3 still held by others who share it.
local owner = redis.call('GET', LOCK)
leave_queue(TOKEN)
-- An acquire or a renewal that is still on its way must not take back what was released.
redis.call('SET', ENDED .. TOKEN, ARGV[6], 'PX', ARGV[7])
if owner then
	local shared = redis.call('HGET', META, 'owner') == owner
	local mine = shared and redis.call('HDEL', META, 's:' .. TOKEN) == 1
	if owner ~= TOKEN and not mine then return 0 end
	if shared and shares() > 0 then return 3 end
end
if hand_over() then return owner and 2 or 0 end
redis.call('DEL', LOCK, META)
return owner and 1 or 0
