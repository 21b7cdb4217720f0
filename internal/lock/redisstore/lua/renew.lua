-- Extends the holder's lease; takes the lock back when it is gone, untaken and was not ended.
-- ARGV: 7 ttl, ms  8 record  9 token of our share, the holder's own unless we joined it
-- 10 the server that counts our subscription, "none" for no presence, or empty: as it was claimed
-- before 11 what a push will do, a line "ref old new" for each ref, or empty: as it was declared
-- before 12 for how long the lock then lasts, unless it does for longer, ms
-- Returns {1, fence, claimed, guarded} renewed, {2, fence, claimed, guarded} reasserted, {0,
-- holder, how it was ended}; claimed is 1 when our subscription is counted here, guarded is 1 when
-- a server asks what is declared. A freeze leaves the present hold alone, and also what it would be
-- but for a loss of data.
FREEING = true
local TTL, RECORD, SHARE, SERVER = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
FIRST = ARGV[12]
local frozen, text = freeze()
if frozen then settle() end
local owner = redis.call('GET', LOCK)
local m = redis.call('HMGET', META, 'owner', 'fence', 'restored')
local ended = how_ended(SHARE)
-- Who has the lock by a smaller fence had it before us. A failover, or a waiter after a loss of
-- data, has revived it.
local revived = owner and owner ~= TOKEN and m[1] == owner and tonumber(m[2]) < KNOWN
if ended or (owner and owner ~= TOKEN and not revived) then
	if not ended then event('lost', RECORD) end
	return {0, holder(), ended or ''}
end
redis.call('PEXPIRE', META, DAY) -- a full server allows this, and after it the rest
local status, fence = 1, tonumber(m[2] or '')
if owner ~= TOKEN or m[1] ~= TOKEN or m[3] then
	status, fence = 2, grant(TOKEN, RECORD, TTL, nil, 'reasserted')
	if SHARE ~= TOKEN then -- its holder speaks for itself, and may have no presence
		redis.call('HDEL', META, 's:' .. TOKEN)
		redis.call('HSET', META, 'unsure', '1')
	end
end
if SHARE == TOKEN then redis.call('HDEL', META, 'unsure') end
found()
local claim, claimed = redis.call('HGET', META, 's:' .. SHARE) or '1', 0
if SERVER ~= '' then
	claim = (claim == '1' or SERVER == 'none') and '1' or 'moving'
	local here, count, replicas = server()
	if SERVER == here and (subscribers(TOKEN, count) or 0) > 0 then
		claim, claimed = SERVER, 1
		if replicas then
			redis.call('HSET', META, 'replicated', '1')
		else
			redis.call('HDEL', META, 'replicated')
		end
	end
end
redis.call('HSET', META, 's:' .. SHARE, claim)
if ARGV[11] ~= '' then redis.call('HSET', META, 'i:' .. SHARE, ARGV[11]) end
-- The record may have a new session.
redis.call('HSET', META, SHARE == TOKEN and 'record' or 'r:' .. SHARE, RECORD)
extend(TTL, FIRST)
if frozen and status == 2 then ice(frozen, text) end
return {status, fence, claimed, how_ended(GUARDED) and 1 or 0}
