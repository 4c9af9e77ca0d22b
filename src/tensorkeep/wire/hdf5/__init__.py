"""HDF5: a container of named arrays in groups, read without the C library, which strangers' files can crash.

Lives here: the file and its objects (file), links (groups, heaps), types of elements (datatypes), where the bytes of a data set are
(datasets, chunks, filters), and attributes. Nothing that a file names outside of itself is ever opened: an external link, external raw
data or a virtual data set is told, not followed.

Source: HDF5 File Format Specification 3.0 and 4.0, https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html; section numbers
in these rooms are its own. Where it is silent, what libhdf5 writes was looked at.
"""
