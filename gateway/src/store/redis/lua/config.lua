--[[ A room's configuration and its status.

`settings` of `meta`: setting -> JSON text, as a JSON object; a setting is a field of the configuration, or group.member
(shared/src/protocol/config.rs). `config` of `meta` is made of it: what clients get. ]]

local GROUPS = { cooldownMs = true, features = true, rate = true }
local MAX_CONFIG = 8192

local function settings_of(c)
  if not c.settings then
    local text = not c.fresh and read('HGET', c.keys[META], 'settings')
    local ok, settings = true, {}
    if text then ok, settings = pcall(decode, text) end
    if not ok or type(settings) ~= 'table' then damaged(c.keys[META], 'settings') end
    c.settings = settings
  end
  return c.settings
end

-- As config_text in shared/src/protocol/config.rs.
local function config_text(settings)
  local names, out, open = {}, {}, nil
  for name in pairs(settings) do names[#names + 1] = name end
  sort(names, less)
  for _, name in ipairs(names) do
    local group, member = match(name, '^(%a+)%.(.*)$')
    if not GROUPS[group] then group, member = nil, nil end
    if open and open ~= group then out[#out], open = out[#out] .. '}', nil end
    local text = quote(member or name) .. ':' .. settings[name]
    if group and not open then text, open = quote(group) .. ':{' .. text, group end
    out[#out + 1] = text
  end
  return '{' .. concat(out, ',') .. (open and '}}' or '}')
end

-- The rules that follow from the settings.
local function set_rules(c, settings)
  local rate, cool
  for _, lane in ipairs(LANES) do
    local text, pause = settings['rate.' .. lane], tonumber(settings['cooldownMs.' .. lane] or 0)
    if text then
      local r = decode(text)
      rate = rate or {}
      rate[lane] = { r.perSecond, r.burst }
    end
    if pause > 0 then
      cool = cool or {}
      cool[lane] = pause
    end
  end
  local hours, most = tonumber(settings.retentionHours), tonumber(settings.capacity or 0)
  set_rule(c, 'rate', rate)
  set_rule(c, 'cool', cool)
  set_rule(c, 'most', most > 0 and most or nil)
  set_rule(c, 'bytes', tonumber(settings.maxMessageBytes))
  set_rule(c, 'kept', hours and max(1, floor(hours * 3600000)) or nil)
  if settings.images == 'false' then set_rule(c, 'images', false) else set_rule(c, 'images', nil) end
  set_rule(c, 'idle', settings.archiveIdle == 'true' or c.guard and c.guard.again or nil)
end

-- What members are told of each other may be another thing from now on.
local function retell(c, before, settings)
  c.wish = MODES[match(settings.presence or '', '^"(%a+)"$') or ''] or c.plain_limits.presence
  local many_now = members(c) > c.limits.full_members
  c.counting = c.wish == WHO and many_now and (before ~= WHO or c.counting == 1) and 1 or 0
  c.mode = c.wish == WHO and c.counting == 1 and HOW_MANY or c.wish
  c.counted = true
  if c.mode == before then return end
  if c.mode == HOW_MANY then c.turned = true end
  if c.mode == WHO then
    c.turned_back = true
    append(c, 'presence', nil, '{"all":true,"joined":[' .. all_users(c) .. ']}')
    c.touched_any = true
  end
end

-- C: key, by (JSON), set: a list of setting and value, remove: a list of settings. Answer: text.
OPS.C = function(c, i, at)
  local argv, key, by = c.argv, c.argv[i], c.argv[i + 1]
  local n = tonumber(argv[i + 2])
  local j = i + 3 + 2 * n
  local stop = j + 1 + tonumber(argv[j])
  if c.shut then
    gone(c, at)
    return stop
  end
  if happened(c, at, key) then
    again(c, at, '^{"config":(.*)}$', function(config, seq)
      return '{"config":' .. (config or c.config) .. ',"seq":' .. format('%d', seq) .. '}'
    end)
    return stop
  end
  if shut_out(c, at, c.guard and plain(by)) then return stop end
  cold(c)
  rest(c)
  local settings = {}
  for name, value in pairs(settings_of(c)) do settings[name] = value end
  for k = i + 3, j - 1, 2 do settings[argv[k]] = argv[k + 1] end
  for k = j + 1, stop - 1 do settings[argv[k]] = nil end
  local text = config_text(settings)
  if #text > MAX_CONFIG then
    refuse(c, at, 'too_large', 'a configuration has at most ' .. MAX_CONFIG .. ' bytes')
    return stop
  end
  if c.pending then flush(c) end
  local before = telling(c)
  c.settings, c.config, c.configured = settings, text, true
  set_rules(c, settings)
  c.limits, c.window = limits_kept(c.plain_limits, c.guard), nil
  local seq = append(c, 'room.configured', by, '{"config":' .. text .. '}')
  retell(c, before, settings)
  remember(c, key, seq)
  c.out[at] = '{"config":' .. text .. ',"seq":' .. format('%d', seq) .. '}'
  return stop
end

-- The room's status from now on.
local function set_status(c, status, by)
  cold(c)
  c.status, c.configured = status, true
  set_rule(c, 'status', status ~= 'active' and status or nil)
  if status == 'completed' then c.shut, c.completed = true, c.now end
  return append(c, 'room.status', by, '{"status":"' .. status .. '"}')
end

-- Q: key, by (JSON), status. Answer: seq.
OPS.Q = function(c, i, at)
  local key, by, status = c.argv[i], c.argv[i + 1], c.argv[i + 2]
  if not c.epoch then
    gone(c, at)
  elseif happened(c, at, key) then
    return i + 3
  elseif c.shut then
    gone(c, at)
  elseif not shut_out(c, at, c.guard and plain(by)) then
    cold(c)
    if c.pending then flush(c) end
    if status ~= c.status then set_status(c, status, by) end
    remember(c, key, c.seq)
    c.out[at] = c.seq
  end
  return i + 3
end
