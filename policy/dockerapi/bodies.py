"""Every field of every JSON body that ds01 lets through, API 1.24 to 1.51.

Owns the tables; `schema` says how a field is read. A field that is missing here is refused when it asks
for something. Presence here permits nothing: the rules decide.
SOURCE: Engine API reference 1.24-1.51, moby api/types (20.10.24, 24.0.9, 28.5.2).
"""

from __future__ import annotations

from policy.dockerapi.schema import (
    BOOL,
    IGNORED,
    INT,
    SET,
    STRING_MAP,
    STRINGS,
    TEXT,
    WORDS,
    Kept,
    ListBody,
    ListOf,
    MapOf,
    Shape,
    Struct,
)

CONSOLE_SIZE = ListOf(INT)

HEALTHCHECK = Struct(
    {
        "Test": STRINGS,
        "Interval": INT,
        "Timeout": INT,
        "StartPeriod": INT,
        "StartInterval": INT,
        "Retries": INT,
    }
)

_CONFIG: dict[str, Shape] = {
    "Hostname": TEXT,
    "Domainname": TEXT,
    "User": TEXT,
    "AttachStdin": BOOL,
    "AttachStdout": BOOL,
    "AttachStderr": BOOL,
    "ExposedPorts": SET,
    "Tty": BOOL,
    "OpenStdin": BOOL,
    "StdinOnce": BOOL,
    "Env": STRINGS,
    "Cmd": WORDS,
    "Healthcheck": HEALTHCHECK,
    "ArgsEscaped": BOOL,
    "Image": TEXT,
    "Volumes": SET,
    "WorkingDir": TEXT,
    "Entrypoint": Kept(WORDS),  # [] clears the image's, absence keeps it
    "NetworkDisabled": BOOL,
    "MacAddress": TEXT,
    "OnBuild": STRINGS,
    "Labels": STRING_MAP,
    "StopSignal": TEXT,
    "StopTimeout": Kept(INT),  # 0 kills at once, absence waits ten seconds
    "Shell": STRINGS,
}

WEIGHT_DEVICES = ListOf(Struct({"Path": TEXT, "Weight": INT}))
THROTTLE_DEVICES = ListOf(Struct({"Path": TEXT, "Rate": INT}))
ULIMITS = ListOf(Struct({"Name": TEXT, "Soft": INT, "Hard": INT}))
DEVICE_REQUESTS = ListOf(
    Struct(
        {
            "Driver": TEXT,
            "Count": INT,
            "DeviceIDs": STRINGS,
            "Capabilities": ListOf(STRINGS),
            "Options": STRING_MAP,
        }
    )
)

_RESOURCES: dict[str, Shape] = {
    "CpuShares": INT,
    "Memory": INT,
    "NanoCpus": INT,
    "CgroupParent": TEXT,
    "BlkioWeight": INT,
    "BlkioWeightDevice": WEIGHT_DEVICES,
    "BlkioDeviceReadBps": THROTTLE_DEVICES,
    "BlkioDeviceWriteBps": THROTTLE_DEVICES,
    "BlkioDeviceReadIOps": THROTTLE_DEVICES,
    "BlkioDeviceWriteIOps": THROTTLE_DEVICES,
    "CpuPeriod": INT,
    "CpuQuota": INT,
    "CpuRealtimePeriod": INT,
    "CpuRealtimeRuntime": INT,
    "CpusetCpus": TEXT,
    "CpusetMems": TEXT,
    "Devices": ListOf(Struct({"PathOnHost": TEXT, "PathInContainer": TEXT, "CgroupPermissions": TEXT})),
    "DeviceCgroupRules": STRINGS,
    "DeviceRequests": DEVICE_REQUESTS,
    "KernelMemory": INT,
    "KernelMemoryTCP": INT,
    "MemoryReservation": INT,
    "MemorySwap": INT,
    "MemorySwappiness": Kept(INT),  # 0 swaps nothing, absence is the kernel's default
    "OomKillDisable": BOOL,
    "PidsLimit": Kept(INT),  # 0 and -1 lift the limit, absence leaves it
    "Ulimits": ULIMITS,
    **dict.fromkeys(("CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth"), IGNORED),  # Windows
}
# What the reference lists for an update and no engine reads: it cannot change once a container is there.
_NOT_UPDATED = ("CgroupParent", "Devices", "DeviceCgroupRules", "DeviceRequests", "Init", "Ulimits")

RESTART_POLICY = Struct({"Name": TEXT, "MaximumRetryCount": INT})

DRIVER_CONFIG = Struct({"Name": TEXT, "Options": STRING_MAP})

MOUNT = Struct(
    {
        "Type": TEXT,
        "Source": TEXT,
        "Target": TEXT,
        "ReadOnly": BOOL,
        "Consistency": TEXT,
        "BindOptions": Struct(
            {
                "Propagation": TEXT,
                "NonRecursive": BOOL,
                "CreateMountpoint": BOOL,
                "ReadOnlyNonRecursive": BOOL,
                "ReadOnlyForceRecursive": BOOL,
            }
        ),
        "VolumeOptions": Struct(
            {"NoCopy": BOOL, "Labels": STRING_MAP, "Subpath": TEXT, "DriverConfig": DRIVER_CONFIG}
        ),
        "ImageOptions": Struct({"Subpath": TEXT}),
        "TmpfsOptions": Struct({"SizeBytes": INT, "Mode": INT, "Options": ListOf(STRINGS)}),
    }
)

HOST_CONFIG = Struct(
    {
        **_RESOURCES,
        "Binds": STRINGS,
        "ContainerIDFile": IGNORED,  # a file of the client
        "LogConfig": Struct({"Type": TEXT, "Config": STRING_MAP}),
        "NetworkMode": TEXT,
        "PortBindings": MapOf(ListOf(Struct({"HostIp": TEXT, "HostPort": TEXT})), zero=None),
        "RestartPolicy": RESTART_POLICY,
        "AutoRemove": BOOL,
        "VolumeDriver": TEXT,
        "VolumesFrom": STRINGS,
        "ConsoleSize": CONSOLE_SIZE,
        "Annotations": STRING_MAP,
        "CapAdd": WORDS,
        "CapDrop": WORDS,
        "CgroupnsMode": TEXT,
        "Dns": STRINGS,
        "DnsOptions": STRINGS,
        "DnsSearch": STRINGS,
        "ExtraHosts": STRINGS,
        "GroupAdd": STRINGS,
        "IpcMode": TEXT,
        "Cgroup": TEXT,
        "Links": STRINGS,
        "OomScoreAdj": INT,
        "PidMode": TEXT,
        "Privileged": BOOL,
        "PublishAllPorts": BOOL,
        "ReadonlyRootfs": BOOL,
        "SecurityOpt": STRINGS,
        "StorageOpt": STRING_MAP,
        "Tmpfs": STRING_MAP,
        "UTSMode": TEXT,
        "UsernsMode": TEXT,
        "ShmSize": INT,
        "Sysctls": STRING_MAP,
        "Runtime": TEXT,
        "Isolation": IGNORED,  # Windows
        "Mounts": ListOf(MOUNT),
        "MaskedPaths": Kept(STRINGS),  # [] masks nothing, absence is the default: a rule refuses []
        "ReadonlyPaths": Kept(STRINGS),
        "Init": Kept(BOOL),  # false overrides the daemon's default
    }
)

ENDPOINT_SETTINGS = Struct(
    {
        "IPAMConfig": Struct({"IPv4Address": TEXT, "IPv6Address": TEXT, "LinkLocalIPs": STRINGS}),
        "Links": STRINGS,
        "Aliases": STRINGS,
        "MacAddress": TEXT,
        "DriverOpts": STRING_MAP,
        "GwPriority": INT,
        "NetworkID": TEXT,
        # What the engine reports; compose echoes it when it connects again.
        "EndpointID": IGNORED,
        "Gateway": IGNORED,
        "IPAddress": IGNORED,
        "IPPrefixLen": IGNORED,
        "IPv6Gateway": IGNORED,
        "GlobalIPv6Address": IGNORED,
        "GlobalIPv6PrefixLen": IGNORED,
        "DNSNames": IGNORED,
    }
)

CONFIG = Struct(_CONFIG)  # the body of commit

CONTAINER_CREATE = Struct(
    {
        **_CONFIG,
        "HostConfig": HOST_CONFIG,
        "NetworkingConfig": Struct({"EndpointsConfig": MapOf(ENDPOINT_SETTINGS, zero=())}),
    },
    # SECURITY: without HostConfig, engines up to 26.1 take Privileged, Binds ... from the top level.
    always=("HostConfig",),
)

CONTAINER_UPDATE = Struct(
    {**_RESOURCES, **dict.fromkeys(_NOT_UPDATED, IGNORED), "RestartPolicy": RESTART_POLICY}
)

EXEC_CREATE = Struct(
    {
        "User": TEXT,
        "Privileged": BOOL,
        "Tty": BOOL,
        "ConsoleSize": CONSOLE_SIZE,
        "AttachStdin": BOOL,
        "AttachStderr": BOOL,
        "AttachStdout": BOOL,
        "Detach": BOOL,  # of old clients; dockerd takes it from exec start
        "DetachKeys": TEXT,
        "Env": STRINGS,
        "WorkingDir": TEXT,
        "Cmd": STRINGS,
        "Container": IGNORED,  # docker-py repeats the path here
    }
)

EXEC_START = Struct({"Detach": BOOL, "Tty": BOOL, "ConsoleSize": CONSOLE_SIZE})

VOLUME_CREATE = Struct({"Name": TEXT, "Driver": TEXT, "DriverOpts": STRING_MAP, "Labels": STRING_MAP})

NETWORK_CREATE = Struct(
    {
        "Name": TEXT,
        "CheckDuplicate": BOOL,
        "Driver": TEXT,
        "Scope": TEXT,
        "EnableIPv4": Kept(BOOL),  # absence is the engine's default, which is true
        "EnableIPv6": Kept(BOOL),
        "IPAM": Struct(
            {
                "Driver": TEXT,
                "Options": STRING_MAP,
                "Config": ListOf(
                    Struct(
                        {"Subnet": TEXT, "IPRange": TEXT, "Gateway": TEXT, "AuxiliaryAddresses": STRING_MAP}
                    )
                ),
            }
        ),
        "Internal": BOOL,
        "Attachable": BOOL,
        "Ingress": BOOL,
        "ConfigOnly": BOOL,
        "ConfigFrom": Struct({"Network": TEXT}),
        "Options": STRING_MAP,
        "Labels": STRING_MAP,
    }
)

NETWORK_CONNECT = Struct({"Container": TEXT, "EndpointConfig": ENDPOINT_SETTINGS})

NETWORK_DISCONNECT = Struct({"Container": TEXT, "Force": BOOL})

AUTH = Struct(
    {
        "username": TEXT,
        "password": TEXT,
        "auth": TEXT,
        "email": TEXT,
        "serveraddress": TEXT,
        "identitytoken": TEXT,
        "registrytoken": TEXT,
    }
)

PLUGIN_PRIVILEGES = ListBody(ListOf(Struct({"Name": TEXT, "Description": TEXT, "Value": STRINGS})))
PLUGIN_SETTINGS = ListBody(STRINGS)

PLATFORM = Struct(
    {"architecture": TEXT, "os": TEXT, "os.version": TEXT, "os.features": STRINGS, "variant": TEXT}
)
"""An OCI platform, as JSON in a query value."""

BUILD_OUTPUTS = ListOf(Struct({"Type": TEXT, "Attrs": STRING_MAP}))
