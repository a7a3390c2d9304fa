using System.Runtime.CompilerServices;

[assembly: InternalsVisibleTo("Patd.Tests")]
[assembly: InternalsVisibleTo("Patd.Conformance")]
