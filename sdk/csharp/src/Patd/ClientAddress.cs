using System;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Patd
{
    /// <summary>An IP address: 16 bytes, IPv4 as ::ffff:a.b.c.d, and its text as patd takes it.</summary>
    internal sealed class ClientAddress
    {
        [ThreadStatic]
        private static (string Text, ClientAddress Address) last;

        private ClientAddress(byte[] bytes, string text)
        {
            Bytes = bytes;
            Text = text;
        }

        internal byte[] Bytes { get; }

        internal string Text { get; }

        /// <summary>Reads an IP address. A zone is left out. Null: the address is not known.</summary>
        internal static ClientAddress? Read(string? text)
        {
            if (string.IsNullOrEmpty(text))
            {
                return null;
            }

            if (text == last.Text)
            {
                return last.Address;
            }

            var address = Parse(text!);
            last = (text!, address);
            return address;
        }

        private static ClientAddress Parse(string text)
        {
            var zone = text.IndexOf('%');
            var bare = zone < 0 ? text : text.Substring(0, zone);
            var six = bare.IndexOf(':') >= 0;
            // IPAddress takes more than addresses: numbers, octal, brackets and ports.
            if (text.Length > 100 || zone >= 0 && (!six || zone == text.Length - 1)
                || !(six ? IsIPv6(bare) : IsIPv4(bare)) ||
                !IPAddress.TryParse(bare, out var address))
            {
                throw PatdFaultException.Invalid("the address of the client is no IP address");
            }

            var bytes = address.MapToIPv6().GetAddressBytes();
            var shown = address.AddressFamily == AddressFamily.InterNetworkV6 && address.IsIPv4MappedToIPv6
                ? address.MapToIPv4() : address;
            return new ClientAddress(bytes, shown.ToString());
        }

        private static bool IsIPv6(string text)
        {
            foreach (var c in text)
            {
                if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f') && !(c >= 'A' && c <= 'F') && c != ':'
                    && c != '.')
                {
                    return false;
                }
            }

            var last = text.LastIndexOf(':') + 1;
            return text.IndexOf('.') < 0 || IsIPv4(text.Substring(last));
        }

        private static bool IsIPv4(string text)
        {
            var fields = text.Split('.');
            if (fields.Length != 4)
            {
                return false;
            }

            foreach (var field in fields)
            {
                if (field.Length == 0 || field.Length > 3 || field.Length > 1 && field[0] == '0' ||
                    !int.TryParse(field, NumberStyles.None, CultureInfo.InvariantCulture, out var n) || n > 255)
                {
                    return false;
                }
            }

            return true;
        }
    }
}
