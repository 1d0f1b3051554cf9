#!lua flags=allow-oom
-- lease: renew a node's lease, and notice an outage of all nodes.
--   KEYS[1] meta HASH   [2] nodes HASH, used in partition 0
--   ARGV[1] node id, "" in other partitions   [2] what it announces (JSON)
--   ARGV[3] silence that counts as an outage, ms
--   returns {now ms, up_since ms, node id, "renewed-at-ms JSON", …}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local beat = tonumber(redis.call('HGET', KEYS[1], 'beat') or '0')
if now - beat > tonumber(ARGV[3]) then redis.call('HSET', KEYS[1], 'up_since', now) end
redis.call('HSET', KEYS[1], 'beat', now)
if ARGV[1] ~= '' then redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f ', now) .. ARGV[2]) end
local reply = {now, tonumber(redis.call('HGET', KEYS[1], 'up_since'))}
local nodes = redis.call('HGETALL', KEYS[2])
for i = 1, #nodes do reply[#reply + 1] = nodes[i] end
return reply
