-- Keeps what followers offer to the holder of the lock.
-- KEYS: 10 offers, a hash: TOKEN its offer (JSON), landed:TOKEN when it was pushed, how many
-- together and by whom, paused until when (µs); from 11 on, the wake lists of the tokens that have
-- landed
-- ARGV: 7 what to do  8 and 9 by what is done
local OFFERS, DO = KEYS[10], ARGV[7]
local function time(field)
	return tonumber(string.match(redis.call('HGET', OFFERS, field) or '', '^%d+') or '') or 0
end

if DO == 'offer' then -- 8 offer or empty  9 record. Returns 0 paused, 1 offered, 2 landed
	if time('landed:' .. TOKEN) > 0 then return 2 end
	if time('paused') > NOW then return 0 end
	if ARGV[8] == '' then return 1 end
	if redis.call('HSETNX', OFFERS, TOKEN, ARGV[8]) == 1 then event('batch_joined', ARGV[9]) end
	redis.call('PEXPIRE', OFFERS, DAY)
	return 1
end

if DO == 'withdraw' then -- Returns how many were pushed together, and by whom
	local together, by = string.match(redis.call('HGET', OFFERS, 'landed:' .. TOKEN) or '', '^%d+ (%d+) (.*)$')
	redis.call('HDEL', OFFERS, TOKEN, 'landed:' .. TOKEN)
	return {tonumber(together or '0'), by or ''}
end

if DO == 'pause' then -- 8 ms
	redis.call('HSET', OFFERS, 'paused', int(NOW + ARGV[8] * 1000))
	redis.call('PEXPIRE', OFFERS, DAY)
	return 0
end

if DO == 'claim' then -- 8 at most. Returns {token, offer, …} in line order
	if redis.call('GET', LOCK) ~= TOKEN or freeze() then return {} end
	local waits, claimed = {}, {}
	for _, token in ipairs(redis.call('ZRANGE', QUEUE, 0, -1)) do
		waits[token] = true
		local offer = #claimed < 2 * tonumber(ARGV[8]) and redis.call('HGET', OFFERS, token)
		if offer then
			claimed[#claimed + 1] = token
			claimed[#claimed + 1] = offer
		end
	end
	for _, field in ipairs(redis.call('HKEYS', OFFERS)) do -- of those who wait no more
		local landed = string.sub(field, 1, 7) == 'landed:'
		if landed and time(field) < NOW - 600000000 or not landed and field ~= 'paused' and field ~= TOKEN and not waits[field] then
			redis.call('HDEL', OFFERS, field)
		end
	end
	return claimed
end

if DO == 'landed' then -- 8 record of the caller  9 name of the leader or empty  10… tokens
	local together, counted = #ARGV - 8, false
	for i = 10, #ARGV do
		local token = ARGV[i]
		if time('landed:' .. token) == 0 then
			if not counted then event('batch_pushed', ARGV[9] ~= '' and ARGV[8] or '', 'batch', together) end
			counted = true
			event('batch_landed', token == TOKEN and ARGV[8] or alive(token) or '')
			redis.call('HDEL', OFFERS, token)
			redis.call('HSET', OFFERS, 'landed:' .. token, int(NOW) .. ' ' .. together .. ' ' .. string.sub(ARGV[9], 1, 200))
		end
		leave_queue(token)
		wake(token)
	end
	call_first()
	redis.call('PEXPIRE', OFFERS, DAY)
	return 0
end
